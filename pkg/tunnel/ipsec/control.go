package ipsec

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"syscall"
	"time"
)

// outcome is the daemon's answer to what a driver asks for.
type outcome struct {
	Changes int    `json:"changes"`
	Error   string `json:"error,omitempty"`
}

// serve answers on the control socket until ctx ends. Only root can reach it, since the folder is closed to others.
func (d *daemon) serve(ctx context.Context, path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove an old control socket: %w", err)
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		return fmt.Errorf("listen on the IPsec control socket: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("PUT /desired", func(w http.ResponseWriter, r *http.Request) {
		var want Desired
		if err := json.NewDecoder(r.Body).Decode(&want); err != nil {
			reply(w, outcome{Error: fmt.Sprintf("read what is desired: %v", err)})
			return
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		changes, err := d.apply(ctx, want)
		reply(w, outcomeOf(changes, err))
	})
	mux.HandleFunc("DELETE /desired", func(w http.ResponseWriter, _ *http.Request) {
		d.mu.Lock()
		defer d.mu.Unlock()
		reply(w, outcomeOf(d.quit()))
	})
	mux.HandleFunc("GET /report", func(w http.ResponseWriter, _ *http.Request) {
		d.mu.Lock()
		defer d.mu.Unlock()
		reply(w, d.report())
	})
	ctx, end := context.WithCancel(ctx)
	defer end()
	mux.HandleFunc("DELETE /process", func(w http.ResponseWriter, _ *http.Request) {
		d.mu.Lock()
		d.leaving = true
		d.mu.Unlock()
		reply(w, outcome{Changes: 1})
		end()
	})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: time.Second}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	d.log.Info("the IPsec daemon is ready", "socket", path)
	select {
	case err = <-failed:
		return fmt.Errorf("serve the IPsec control socket: %w", err)
	case <-ctx.Done():
	}
	farewell, cancel := context.WithTimeout(context.WithoutCancel(ctx), charonTimeout)
	defer cancel()
	err = server.Shutdown(farewell)
	<-failed
	return err
}

func outcomeOf(changes int, err error) outcome {
	o := outcome{Changes: changes}
	if err != nil {
		o.Error = err.Error()
	}
	return o
}

func reply(w http.ResponseWriter, what any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(what) // a driver that went away asks again
}

// errNoDaemon: nobody serves the control socket.
var errNoDaemon = errors.New("no process answers on the IPsec control socket")

// control asks the daemon behind a control socket.
type control struct{ client *http.Client }

func newControl(path string) control {
	var dialer net.Dialer
	return control{&http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return dialer.DialContext(ctx, "unix", path) },
	}}}
}

// apply asks for everything to be as desired and returns the number of writes that this took.
func (c control) apply(ctx context.Context, want Desired) (changes int, err error) {
	body, err := json.Marshal(want)
	if err != nil {
		return 0, fmt.Errorf("encode what is desired: %w", err)
	}
	return c.change(ctx, http.MethodPut, "/desired", body)
}

// quit asks for charon to end.
func (c control) quit(ctx context.Context) (changes int, err error) {
	return c.change(ctx, http.MethodDelete, "/desired", nil)
}

// end asks for the process to end, and charon with it.
func (c control) end(ctx context.Context) (changes int, err error) {
	return c.change(ctx, http.MethodDelete, "/process", nil)
}

func (c control) change(ctx context.Context, method, path string, body []byte) (int, error) {
	var o outcome
	if err := c.ask(ctx, method, path, body, &o); err != nil {
		return 0, err
	}
	if o.Error != "" {
		return o.Changes, errors.New(o.Error)
	}
	return o.Changes, nil
}

// report asks how things are.
func (c control) report(ctx context.Context) (r Report, err error) {
	return r, c.ask(ctx, http.MethodGet, "/report", nil, &r)
}

func (c control) ask(ctx context.Context, method, path string, body []byte, into any) error {
	ctx, cancel := context.WithTimeout(ctx, applyTimeout+keepTimeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, "http://ipsec"+path, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("ask the IPsec daemon: %w", err)
	}
	resp, err := c.client.Do(r)
	if errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, os.ErrNotExist) {
		return errNoDaemon
	}
	if err != nil {
		return fmt.Errorf("ask the IPsec daemon: %w", err)
	}
	text, err := io.ReadAll(resp.Body)
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return fmt.Errorf("read the IPsec daemon's answer: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("the IPsec daemon answers %s: %s", resp.Status, bytes.TrimSpace(text))
	}
	if err := json.Unmarshal(text, into); err != nil {
		return fmt.Errorf("read the IPsec daemon's answer: %w", err)
	}
	return nil
}
