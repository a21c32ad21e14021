package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"syscall"
	"time"
)

// ErrNoAgent says that nobody answers at the socket.
var ErrNoAgent = errors.New("no agent answers")

// askPatience is how long an agent may take to answer: one that is stopped or stuck is as good as none.
const askPatience = 4 * time.Second

// Ask reads the report of the agent at a socket. The error is ErrNoAgent where none runs, or where it does not answer.
func Ask(ctx context.Context, path string) (*Report, error) {
	ctx, cancel := context.WithTimeout(ctx, askPatience)
	defer cancel()
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", path)
		},
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://agent/v1/report", nil)
	if err != nil {
		return nil, fmt.Errorf("make a request: %w", err)
	}
	resp, err := client.Do(req)
	switch {
	case errors.Is(err, syscall.EACCES):
		return nil, fmt.Errorf("open %s: only root may: %w", path, err)
	case err != nil:
		return nil, fmt.Errorf("%w at %s: %w", ErrNoAgent, path, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the agent at %s answers %s: it is of another version than this ravenctl", path, resp.Status)
	}
	var r Report
	if err := json.NewDecoder(resp.Body).Decode(&r); err != nil {
		return nil, fmt.Errorf("read the agent's answer: %w", err)
	}
	return &r, nil
}
