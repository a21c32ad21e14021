package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// bindRetry is how long a taken port is waited for before it is tried again: the agent of the version before may hold
// it still. A port that stays taken costs the page and nothing else.
const bindRetry = 5 * time.Second

// Serve serves h at address until ctx is done. An empty address or "0" serves nothing.
func Serve(ctx context.Context, page, address string, h http.Handler, log *slog.Logger) {
	if address == "" || address == "0" {
		return
	}
	told := ""
	for {
		err := serve(ctx, address, h)
		if ctx.Err() != nil {
			return
		}
		if text := fmt.Sprint(err); text != told {
			log.Warn("cannot serve; trying again", "page", page, "address", address, "every", bindRetry, "error", err)
			told = text
		}
		timer := time.NewTimer(bindRetry)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}

func serve(ctx context.Context, address string, h http.Handler) error {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return err
	}
	server := &http.Server{
		Handler: h, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second,
		IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10,
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	select {
	case err = <-ended:
		return errors.Join(err, server.Close())
	case <-ctx.Done():
		err = server.Close()
		<-ended
		return err
	}
}
