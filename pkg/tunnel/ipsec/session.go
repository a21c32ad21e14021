package ipsec

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
)

// session is one life of charon: what carries its packets, its process, its connections.
type session struct {
	dir         string
	port        int // of the host, where the carrier cannot move to another
	carrier     carrier
	charon      *charon
	connections *connections
}

// startSession starts charon; port is the host's UDP port.
func startSession(ctx context.Context, opts DaemonOptions, esp ESP, host, port int, log *slog.Logger) (s *session, err error) {
	s = &session{dir: opts.RunDir}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.end(false))
			s = nil
		}
	}()
	if esp == ESPKernel {
		s.port = port
		var k *kernelESP
		if k, err = newKernelESP(host, opts.Device, port); err != nil {
			return s, err
		}
		s.carrier = k
	} else {
		var u *userspace
		if u, err = newUserspace(host, opts.Device, log); err != nil {
			return s, err
		}
		s.carrier = u
	}
	why := newCauses()
	s.charon, err = startCharon(ctx, s.carrier, opts.RunDir, logCharon(log, why.read))
	if err != nil {
		return s, err
	}
	if err := s.carrier.ready(s.charon.cmd.Process.Pid); err != nil {
		return s, err
	}
	s.connections = newConnections(s.carrier.terms(), s.charon.ask, s.carrier.settled, why)
	log.Info("charon runs", "pid", s.charon.cmd.Process.Pid, "esp", esp)
	return s, nil
}

// serves says whether this session can have the port.
func (s *session) serves(port int) bool { return s.port == 0 || s.port == port }

// apply makes what the connections need, and gives charon its connections.
func (s *session) apply(ctx context.Context, want Desired) (changes int, err error) {
	changes, without, err := s.carrier.prepare(ctx, &want)
	if err != nil && without == nil {
		return changes, err
	}
	n, loadErr := s.connections.load(ctx, want, without)
	changes += n
	if loadErr == nil { // or else charon may still use what goes
		n, loadErr = s.carrier.withdraw(&want)
		changes += n
	}
	return changes, errors.Join(err, loadErr)
}

// end takes the session down; peers are told. With remove what the kernel holds goes as well.
func (s *session) end(remove bool) error {
	var errs []error
	if s.charon != nil {
		errs = append(errs, s.charon.end())
	}
	if s.carrier != nil {
		errs = append(errs, s.carrier.close(remove))
	}
	for _, name := range []string{viciSocket, configFile} {
		if err := os.Remove(filepath.Join(s.dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, fmt.Errorf("clear up after charon: %w", err))
		}
	}
	return errors.Join(errs...)
}
