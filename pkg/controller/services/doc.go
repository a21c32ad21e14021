// Package services works out, purely, the Services, EndpointSlices and DNS records that lead to gateways.
package services
