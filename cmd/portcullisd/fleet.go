// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/portcullis-firewall/portcullis/cmd/fleetcommand"
	"github.com/portcullis-firewall/portcullis/firewall/bans"
	"github.com/portcullis-firewall/portcullis/firewall/fleet"
	"github.com/portcullis-firewall/portcullis/firewall/fleet/publish"
	"github.com/portcullis-firewall/portcullis/firewall/fleet/serve"
	"github.com/portcullis-firewall/portcullis/firewall/fleet/store"
	"github.com/portcullis-firewall/portcullis/policy/quote"
)

func (d *daemon) fleetCommand() *cobra.Command {
	output := "table"
	cmd := fleetcommand.New(func(cmd *cobra.Command, r *fleetcommand.Request) error {
		c := &fleetRun{daemon: d, Request: r, json: output == "json"}
		return map[string]func(context.Context) error{
			"keygen": c.keygen, "publish": c.publish, "status": c.status, "diff": c.diff, "rollback": c.rollback,
			"revoke": c.revoke, "ban": c.ban, "serve": c.serve,
		}[r.Command](cmd.Context())
	}, func(err error) error { return usageError{err} })
	cmd.PersistentFlags().StringVarP(&output, "output", "o", output, "table or json")
	return cmd
}

// fleetRun is one command of a fleet.
type fleetRun struct {
	*daemon
	*fleetcommand.Request
	json bool
}

// printf prints a line for people. Names from elsewhere stay on it.
func (c *fleetRun) printf(format string, args ...any) {
	for i, arg := range args {
		if text, ok := arg.(string); ok {
			args[i] = quote.Text(text)
		}
	}
	_, _ = io.WriteString(c.stdout, fmt.Sprintf(format, args...))
}

// report prints a result, as JSON or by a function.
func (c *fleetRun) report(result any, table func()) error {
	if !c.json {
		table()
		return nil
	}
	e := json.NewEncoder(c.stdout)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(result)
}

func (c *fleetRun) warn(sentences []string) {
	for _, s := range sentences {
		fmt.Fprintf(c.stderr, "portcullis: warning: %s\n", quote.Text(s))
	}
}

func (c *fleetRun) keygen(context.Context) error {
	key, err := fleet.GenerateKey()
	if err != nil {
		return err
	}
	if err := key.Save(c.Out); err != nil {
		return err
	}
	result := struct {
		ID     string `json:"id"`
		Key    string `json:"key"`
		Public string `json:"public"`
	}{string(key.ID), c.Out, fleet.PublicPath(c.Out)}
	return c.report(result, func() {
		c.printf("key %s: %s signs, and stays here; %s goes to every host\n", result.ID, result.Key, result.Public)
	})
}

// open opens the store, and reads the keys that are trusted.
func (c *fleetRun) open(ctx context.Context) (*publish.Fleet, error) {
	f := &publish.Fleet{}
	for _, file := range c.Public {
		keys, err := fleet.ReadPublicKeys(file)
		if err != nil {
			return nil, err
		}
		f.Keys = append(f.Keys, keys...)
	}
	var err error
	f.Store, err = openers.Open(ctx, c.Store, store.Options{CA: c.CA, Certificate: c.Certificate, Key: c.Private})
	return f, err
}

// sign is open with a key to sign with, for a group.
func (c *fleetRun) sign(ctx context.Context) (*publish.Fleet, publish.Request, error) {
	r := publish.Request{Group: c.Group, Patience: c.Patience}
	var err error
	if r.Key, err = fleet.ReadPrivateKey(c.KeyFile); err != nil {
		return nil, r, err
	}
	f, err := c.open(ctx)
	if err != nil {
		return nil, r, err
	}
	f.Keys = append(f.Keys, r.Key.Public())
	if public, err := fleet.ReadPublicKeys(fleet.PublicPath(c.KeyFile)); err == nil {
		f.Keys = append(f.Keys, public...) // others that sign, too, may be in there
	}
	if r.Group == "" {
		r.Group, err = f.Only(ctx)
	}
	return f, r, err
}

func (c *fleetRun) publish(ctx context.Context) error {
	waves, err := publish.ParseWaves(c.Waves)
	if err != nil {
		return usageError{err}
	}
	source, err := publish.ReadSource(c.Args[0], c.Settings)
	if err != nil {
		return err
	}
	if folder, isDir := strings.CutPrefix(c.Store, "dir:"); isDir && folder != "" {
		if err := os.Mkdir(folder, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	f, r, err := c.sign(ctx)
	if err != nil {
		return err
	}
	defer f.Store.Close()
	r.Waves, r.Agree, r.Tell = waves, c.agree, c.tell
	report, err := f.Publish(ctx, source, r)
	return c.published(report, err)
}

func (c *fleetRun) rollback(ctx context.Context) error {
	waves, err := publish.ParseWaves(c.Waves)
	if err != nil {
		return usageError{err}
	}
	f, r, err := c.sign(ctx)
	if err != nil {
		return err
	}
	defer f.Store.Close()
	r.Waves, r.Agree, r.Tell = waves, c.agree, c.tell
	report, err := f.Rollback(ctx, c.Serial, r)
	return c.published(report, err)
}

func (c *fleetRun) revoke(ctx context.Context) error {
	what := publish.RevokeRequest{Hosts: c.Hosts}
	for _, arg := range c.Args {
		if keys, err := fleet.ReadPublicKeys(arg); err == nil {
			for _, k := range keys {
				what.Keys = append(what.Keys, k.ID)
			}
			c.Public = append(c.Public, arg) // it may have signed what the group runs
			continue
		} else if strings.ContainsAny(arg, "./") || len(arg) != 16 {
			return err
		}
		what.Keys = append(what.Keys, fleet.KeyID(arg))
	}
	for _, host := range c.Hosts {
		if err := fleet.CheckHost(host); err != nil {
			return err
		}
	}
	if len(what.Keys)+len(what.Hosts) == 0 {
		return usageError{errors.New("name a key, or a host with --host")}
	}
	f, r, err := c.sign(ctx)
	if err != nil {
		return err
	}
	defer f.Store.Close()
	report, err := f.Revoke(ctx, what, r)
	return c.published(report, err)
}

// agree shows what would change, and asks somebody at a terminal.
func (c *fleetRun) agree(r *publish.Report) error {
	c.warn(r.Warnings)
	if !c.json {
		c.printDifferences(r)
	}
	if c.Yes {
		return nil
	}
	if c.json || !isTerminal(c.stdout) || !isTerminal(os.Stdin) {
		return errors.New("nothing was published: there is no terminal to ask at; --yes publishes without asking")
	}
	c.printf("publish this as bundle %d of group %s? [y/N] ", r.Serial, r.Group)
	answer, err := bufio.NewReader(os.Stdin).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if word := strings.ToLower(strings.TrimSpace(answer)); word != "y" && word != "yes" {
		return errors.New("nothing was published")
	}
	return nil
}

func (c *fleetRun) printDifferences(r *publish.Report) {
	for _, d := range r.Differences {
		c.printf("on %s:\n", someOf(d.Hosts))
		if len(d.Changes) == 0 {
			c.printf("  nothing changes\n")
		}
		for _, text := range d.Changes {
			c.printf("  %s\n", text)
		}
		if len(d.Packets) > 0 {
			c.printf("  who is let in and through:\n")
		}
		for _, text := range d.Packets {
			c.printf("    %s\n", text)
		}
	}
	for _, d := range r.Drift {
		c.printf("on %s, what was changed there by hand ends: %s\n", d.Host, strings.Join(d.Drift, "; "))
	}
}

// someOf names hosts, and of many some.
func someOf(hosts []string) string {
	const most = 5
	if len(hosts) <= most {
		return strings.Join(hosts, ", ")
	}
	return fmt.Sprintf("%s and %d more hosts", strings.Join(hosts[:most], ", "), len(hosts)-most)
}

func (c *fleetRun) tell(w publish.WaveReport) {
	if !c.json && w.Hosts > 0 {
		c.printf("wave %q: in force on %d of %d\n", w.Wave, w.InForce, w.Hosts)
	}
}

func (c *fleetRun) published(r *publish.Report, err error) error {
	if r == nil || !r.Published {
		return err
	}
	return errors.Join(c.report(r, func() { c.printf("published as bundle %d of group %s (%.12s…)\n", r.Serial, r.Group, r.Bundle) }), err)
}

func (c *fleetRun) ban(ctx context.Context) error {
	request := publish.BanRequest{For: c.For, Reason: c.Reason, End: c.End}
	if c.For < 0 || c.For > 0 && c.For < time.Second {
		return usageError{fmt.Errorf("--for %s: a second is the least", c.For)}
	}
	for _, arg := range c.Args {
		p, err := bans.ParseAddress(arg)
		if err != nil {
			return err
		}
		request.Prefixes = append(request.Prefixes, p)
	}
	if err := bans.CheckReason(c.Reason); err != nil {
		return err
	}
	f, r, err := c.sign(ctx)
	if err != nil {
		return err
	}
	defer f.Store.Close()
	request.Group, request.Key = r.Group, r.Key
	report, err := f.Ban(ctx, request)
	if err != nil {
		return err
	}
	return c.report(report, func() {
		done := "banned by"
		if c.End {
			done = "no longer banned by"
		}
		c.printf("%s: %s the operators of group %s, as are %d in all\n", strings.Join(report.Done, ", "), done, report.Group, report.Bans)
	})
}

func (c *fleetRun) serve(ctx context.Context) error {
	root, err := filepath.Abs(c.Args[0])
	if err != nil {
		return err
	}
	if (c.Certificate == "") != (c.Private == "") {
		return usageError{errors.New("--certificate and --private belong together")}
	}
	if err := os.MkdirAll(root, 0o755); err != nil {
		return err
	}
	if c.Issue != "" {
		a, err := serve.OpenAuthority(root)
		if err != nil {
			return err
		}
		if err := a.Issue(c.Issue, "."); err != nil {
			return err
		}
		c.printf("%s.crt and %s.key are for %s, with %s\n", c.Issue, c.Issue, c.Issue, serve.AuthorityPath(root))
		return nil
	}
	config, err := c.serverTLS(root)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: serve.New(ctx, root, c.Publishers), TLSConfig: config, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 2 * time.Minute,
		IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10, ErrorLog: log.New(io.Discard, "", 0)}
	done := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer done()
	fmt.Fprintf(c.stderr, "portcullis: %s is served at https://%s\n", root, listener.Addr())
	if err := server.ServeTLS(listener, "", ""); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// serverTLS returns who the server is, and whose certificates it takes.
func (c *fleetRun) serverTLS(root string) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, ClientAuth: tls.VerifyClientCertIfGiven}
	if c.Clients != "" {
		text, err := os.ReadFile(c.Clients)
		if err != nil {
			return nil, err
		}
		config.ClientCAs = x509.NewCertPool()
		if !config.ClientCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("%s: there is no certificate in it", c.Clients)
		}
		config.ClientAuth = tls.RequireAndVerifyClientCert
	}
	if c.Certificate != "" {
		pair, err := tls.LoadX509KeyPair(c.Certificate, c.Private)
		if err != nil {
			return nil, err
		}
		config.Certificates = []tls.Certificate{pair}
		if c.Clients == "" {
			config.ClientAuth = tls.NoClientCert // nobody vouches for hosts: it is read only
		}
		return config, nil
	}
	a, err := serve.OpenAuthority(root)
	if err != nil {
		return nil, err
	}
	pair, err := a.Server(c.Names...)
	if err != nil {
		return nil, err
	}
	config.Certificates = []tls.Certificate{pair}
	if c.Clients == "" {
		config.ClientCAs = a.Pool()
	}
	fmt.Fprintf(c.stderr, "portcullis: hosts trust this server by %s\n", serve.AuthorityPath(root))
	return config, nil
}

// groups returns the group that is named, or all.
func (c *fleetRun) groups(ctx context.Context, f *publish.Fleet) ([]string, error) {
	if c.Group != "" {
		return []string{c.Group}, store.CheckName("group", c.Group)
	}
	groups, err := f.Groups(ctx)
	slices.Sort(groups)
	return groups, err
}
