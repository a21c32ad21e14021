package cni

import (
	"encoding/json"
	"log/slog"
	"net"
	"net/netip"

	"github.com/containernetworking/cni/pkg/types"
)

// config is the plugin's configuration, with what the runtime adds to it.
type config struct {
	// LogFile and LogLevel (debug, info, warn, error) are optional.
	LogFile  string `json:"logFile"`
	LogLevel string `json:"logLevel"`
	// PrevResult is what the plugins before this one made, in the configuration's own version.
	PrevResult json.RawMessage `json:"prevResult"`
}

func parse(stdin []byte) (*config, error) {
	c := &config{}
	if err := json.Unmarshal(stdin, c); err != nil {
		return nil, types.NewError(types.ErrDecodingFailure, "read the network configuration: "+err.Error(), "")
	}
	if string(c.PrevResult) == "null" {
		c.PrevResult = nil
	}
	return c, nil
}

// level is info where nothing or nonsense is configured.
func (c *config) level() (level slog.Level) {
	if level.UnmarshalText([]byte(c.LogLevel)) != nil {
		return slog.LevelInfo
	}
	return level
}

// result is what matters of a result, of any version from 0.3.0 on.
type result struct {
	Interfaces []struct {
		Name    string `json:"name"`
		MAC     string `json:"mac"`
		Sandbox string `json:"sandbox"`
	} `json:"interfaces"`
	IPs []struct {
		Address string `json:"address"`
	} `json:"ips"`
}

// earlier returns the addresses that the pod had and the Ethernet address of its interface; both may be missing.
func (c *config) earlier(ifName string) (addrs []netip.Addr, mac net.HardwareAddr) {
	var r result
	if json.Unmarshal(c.PrevResult, &r) != nil {
		return nil, nil
	}
	for _, ip := range r.IPs {
		if p, err := netip.ParsePrefix(ip.Address); err == nil {
			addrs = append(addrs, p.Addr())
		}
	}
	for _, i := range r.Interfaces {
		if i.Sandbox != "" && i.Name == ifName {
			mac, _ = net.ParseMAC(i.MAC)
		}
	}
	return addrs, mac
}
