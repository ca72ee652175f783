// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math"
	"os"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/firewall/agent"
	"github.com/portcullis-firewall/portcullis/firewall/crowdsec"
)

const (
	crowdsecURL     = "http://127.0.0.1:8080"
	crowdsecKeyFile = "/etc/portcullis/crowdsec.key"
	longestKey      = 4096 // bytes
)

func (a *app) bouncerCommand() *cobra.Command {
	address, keyFile, interval := "", "", durationFlag{10 * time.Second}
	cmd := &cobra.Command{
		Use:         "bouncer",
		GroupID:     "more",
		Short:       "Ban whom CrowdSec decides to ban",
		Annotations: needsRoot,
		Long: `Follow the decisions of CrowdSec's local API, and ban the addresses and networks that it decides
to ban, for as long as it says. A ban that CrowdSec takes back ends. Bans that others have made
are left alone: the bouncer's own have a reason that begins with "crowdsec: ".

"cscli bouncers add portcullis" makes the key; write it to the file, which only root may read.
When CrowdSec does not answer, or this ends, who is banned stays banned until his time is over.`,
		Example: `  portcullis bouncer
  portcullis bouncer --url http://127.0.0.1:8080 --key-file /etc/portcullis/crowdsec.key`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.bounce(cmd.Context(), address, keyFile, interval.Duration)
		},
	}
	cmd.Flags().StringVar(&address, "url", crowdsecURL, "`URL` of the local API")
	cmd.Flags().StringVar(&keyFile, "key-file", crowdsecKeyFile, "`FILE` with the key of the bouncer")
	cmd.Flags().Var(&interval, "interval", "ask for decisions every `TIME`")
	return cmd
}

func (a *app) bounce(ctx context.Context, address, keyFile string, interval time.Duration) error {
	if err := a.privileged(); err != nil {
		return err
	}
	key, err := readKey(keyFile)
	if err != nil {
		return err
	}
	client, err := crowdsec.NewClient(address, key, version)
	if err != nil {
		return usagef("--url: %w", err)
	}
	// What main sets is for commands that are over soon.
	debug.SetGCPercent(100)
	debug.SetMemoryLimit(math.MaxInt64)
	log := agent.NewLog(completing{a})
	if client.IsClear() {
		log.Warn("the key is sent to %s unencrypted: use https, or an API on this host", address)
	}
	b := &crowdsec.Bouncer{Firewall: a.firewall, Client: client, Interval: interval, Log: log}
	return b.Run(ctx)
}

// readKey reads the key of a bouncer from a file that is nobody else's.
func readKey(path string) (string, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0) // a FIFO must not keep it waiting
	if err != nil {
		return "", fmt.Errorf("read the key of the bouncer: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() || info.Size() > longestKey {
		return "", fmt.Errorf("%s holds no key: write the one line that \"cscli bouncers add portcullis -o raw\" prints", path)
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Uid != 0 && int(st.Uid) != os.Geteuid() {
		return "", fmt.Errorf("%s belongs to user %d, who could put another key there: run \"chown root %s\"", path, st.Uid, path)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return "", fmt.Errorf("others can read %s (mode %04o): run \"chmod 600 %s\"", path, info.Mode().Perm(), path)
	}
	text, err := io.ReadAll(io.LimitReader(f, longestKey))
	if err != nil {
		return "", err
	}
	key := string(bytes.TrimSpace(text))
	if key == "" || bytes.ContainsAny([]byte(key), " \t\r\n") {
		return "", fmt.Errorf("%s holds no key: write the one line that \"cscli bouncers add portcullis -o raw\" prints", path)
	}
	return key, nil
}
