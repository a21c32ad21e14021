package ipsec

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
)

// SecretVariable is the environment's name for the pre-shared key.
const SecretVariable = "VPN_CONNECTION_PSK"

// errNoSecret: the agent was given none.
var errNoSecret = errors.New("there is no pre-shared key: put one into key vpn-connection-psk of Secret kube-system/raven-agent-secret, " +
	"which becomes the environment's " + SecretVariable + ", or name a file that holds it (--vpn-psk-file)")

// Secret returns a reader of the pre-shared key: the content of a file, which may change, or where none is named or there
// yet, the value.
func Secret(file, value string) func() (string, error) {
	return func() (string, error) {
		text := value
		if file != "" {
			content, err := os.ReadFile(file)
			switch {
			case err == nil:
				text = string(content)
			case !errors.Is(err, fs.ErrNotExist):
				return "", fmt.Errorf("read the pre-shared key: %w", err)
			case strings.TrimSpace(value) == "":
				return "", fmt.Errorf("%w (%s is not there)", errNoSecret, file)
			}
		}
		if text = strings.TrimSpace(text); text == "" {
			return "", errNoSecret
		}
		return text, nil
	}
}
