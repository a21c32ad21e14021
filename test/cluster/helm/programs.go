//go:build programs

// Package programs names the program that build.sh builds, so that go mod tidy keeps what it needs.
package programs

import _ "helm.sh/helm/v4/cmd/helm"
