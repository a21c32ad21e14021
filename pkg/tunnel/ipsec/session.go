package ipsec

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
)

// session is one life of charon: its namespace, its process, and the relay.
type session struct {
	dir         string
	enclave     *enclave
	relay       *relay
	charon      *charon
	addresses   []netip.Addr
	connections *connections
}

func startSession(ctx context.Context, opts DaemonOptions, host int, log *slog.Logger) (s *session, err error) {
	s = &session{dir: opts.RunDir}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.end())
			s = nil
		}
	}()
	if s.enclave, err = newEnclave(); err != nil {
		return s, err
	}
	outside := s.enclave.outside
	s.enclave.outside = -1 // the relay's from here on
	s.relay = newRelay(outside, log)
	why := newCauses()
	s.charon, err = startCharon(ctx, s.enclave, opts.RunDir, logCharon(log, why.read))
	if err != nil {
		return s, err
	}
	if err := s.enclave.releaseDevice(host, opts.Device); err != nil {
		return s, err
	}
	s.connections = newConnections(s.charon.ask, why)
	log.Info("charon runs", "pid", s.charon.cmd.Process.Pid)
	return s, nil
}

// apply opens the port, gives charon the addresses and its connections.
func (s *session) apply(ctx context.Context, want Desired) (changes int, err error) {
	if s.relay.serves() != want.Port {
		if err := s.relay.listen(ctx, want.Port); err != nil {
			return 0, err
		}
		changes++
	}
	if !slices.Equal(s.addresses, want.Addresses) {
		n, err := s.enclave.setAddresses(want.Addresses)
		changes += n
		if err != nil {
			return changes, err
		}
		s.addresses = want.Addresses
	}
	n, err := s.connections.load(ctx, want)
	return changes + n, err
}

// end takes the session down; peers are told.
func (s *session) end() error {
	var errs []error
	if s.charon != nil {
		errs = append(errs, s.charon.end())
	}
	if s.relay != nil {
		errs = append(errs, s.relay.close())
	}
	if s.enclave != nil {
		errs = append(errs, s.enclave.close())
	}
	for _, name := range []string{viciSocket, configFile} {
		if err := os.Remove(filepath.Join(s.dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, fmt.Errorf("clear up after charon: %w", err))
		}
	}
	return errors.Join(errs...)
}
