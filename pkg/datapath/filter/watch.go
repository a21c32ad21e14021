package filter

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Watch calls wake whenever someone else changes the table, or one of the host's chains that hold rules of ours, and
// returns when ctx ends or the kernel refuses. It watches the network namespace in which it was called. iptables-legacy
// announces nothing: its chains are looked after by the periodic Apply alone.
func (a *Applier) Watch(ctx context.Context, wake func()) error {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return fmt.Errorf("open a netlink socket to watch nftables: %w", err)
	}
	stop := context.AfterFunc(ctx, func() {
		// Wakes the reader; it cannot fail while the socket is open, and if the socket is gone there is no reader.
		_ = c.SetReadDeadline(time.Unix(1, 0))
	})
	defer stop()
	err = a.watch(ctx, c, wake)
	if closeErr := c.Close(); closeErr != nil {
		err = errors.Join(err, fmt.Errorf("close the netlink socket of the nftables watch: %w", closeErr))
	}
	return err
}

func (a *Applier) watch(ctx context.Context, c *netlink.Conn, wake func()) error {
	if err := c.SetReadBuffer(bufferBytes); err != nil {
		return fmt.Errorf("enlarge the receive buffer of the nftables watch: %w", err)
	}
	if err := c.JoinGroup(unix.NFNLGRP_NFTABLES); err != nil {
		return fmt.Errorf("subscribe to changes of nftables: %w", err)
	}
	for {
		msgs, err := c.Receive()
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.ENOBUFS):
			wake() // more changes than the buffer holds: some of them may have been about us
		case err != nil:
			return fmt.Errorf("receive changes of nftables: %w", err)
		case slices.ContainsFunc(msgs, a.concerns):
			wake()
		}
	}
}

// concerns says whether a message tells of a change that someone else made to what is ours.
func (a *Applier) concerns(m netlink.Message) bool {
	if m.Header.Type>>8 != unix.NFNL_SUBSYS_NFTABLES || len(m.Data) < 4 || a.own.has(m.Header.PID) {
		return false
	}
	kind := m.Header.Type & 0xff
	if kind == unix.NFT_MSG_NEWGEN {
		return false // ends each batch, whatever it was about
	}
	ad, err := netlink.NewAttributeDecoder(m.Data[4:])
	if err != nil {
		return true // let the listing find out
	}
	var table, chain string
	for ad.Next() {
		switch {
		case ad.Type() == 1: // the table, in messages of every kind
			table = ad.String()
		case ad.Type() == unix.NFTA_RULE_CHAIN && (kind == unix.NFT_MSG_NEWRULE || kind == unix.NFT_MSG_DELRULE),
			ad.Type() == unix.NFTA_CHAIN_NAME && (kind == unix.NFT_MSG_NEWCHAIN || kind == unix.NFT_MSG_DELCHAIN):
			chain = ad.String()
		}
	}
	switch nftables.TableFamily(m.Data[0]) {
	case nftables.TableFamilyINet:
		return table == TableName
	case nftables.TableFamilyIPv4, nftables.TableFamilyIPv6:
		return table == hostTable(false).Name && slices.Contains(hostChains, chain)
	}
	return false
}
