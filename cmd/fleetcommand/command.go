// SPDX-License-Identifier: Apache-2.0

// Package fleetcommand is the command line of "portcullis fleet". Both programs have it: portcullis explains it and looks
// whether a command is right, and portcullisd, which has the libraries, does it.
package fleetcommand

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Request is one command with its flags.
type Request struct {
	Command string // keygen, publish and so on
	Args    []string

	Store, Group                 string
	KeyFile                      string   // a private key
	Public                       []string // files of public keys
	CA, Certificate, Private     string
	Out, Settings, Waves, Reason string
	Patience, For                time.Duration
	Yes, End                     bool
	Serial                       uint64
	Hosts                        []string
	Listen, Clients              string
	Publishers, Names            []string
	Issue                        string
}

type builder struct {
	do    func(*cobra.Command, *Request) error
	usage func(error) error // marks an error as one of the command line
}

// New returns the command. Do is called with what is right as far as the command line goes.
func New(do func(*cobra.Command, *Request) error, usage func(error) error) *cobra.Command {
	b := builder{do, usage}
	root := &cobra.Command{
		Use:   "fleet",
		Short: "Run one policy on many hosts",
		Long: `Publish a policy for a group of hosts, signed, by way of what carries files anyway: a folder
that rsync, NFS or git fills, a web server, or etcd. Each host verifies it, checks it, tries
it, and keeps it only if the host can still be reached. On a host, "portcullis run --fleet
fleet.yaml" takes part.

A URL is dir:PATH, https://HOST/PATH or etcd://HOST:2379,HOST:2379,HOST:2379.`,
		Example: `  portcullis fleet keygen --out fleet.key
  portcullis fleet publish --to dir:/srv/fleet --key fleet.key --group web policy.yaml
  portcullis fleet status --from dir:/srv/fleet`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usage(fmt.Errorf("unknown command %q: see \"portcullis fleet --help\"", args[0]))
			}
			return nil
		},
		RunE: func(*cobra.Command, []string) error {
			return usage(errors.New("no command: see \"portcullis fleet --help\""))
		},
	}
	root.AddCommand(b.keygen(), b.publish(), b.status(), b.diff(), b.rollback(), b.revoke(), b.ban(), b.serve())
	return root
}

// command fills in what all commands have. Required are flags that have to be given.
func (b builder) command(cmd *cobra.Command, r *Request, least, most int, what string, required ...string) *cobra.Command {
	cmd.Flags().SortFlags = false
	cmd.Args = func(_ *cobra.Command, args []string) error {
		switch {
		case len(args) < least:
			return b.usage(fmt.Errorf("name %s: see %q", what, cmd.CommandPath()+" --help"))
		case most >= 0 && len(args) > most:
			return b.usage(fmt.Errorf("unexpected argument %q: see %q", args[most], cmd.CommandPath()+" --help"))
		}
		return nil
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		for _, name := range required {
			if !cmd.Flags().Changed(name) {
				f := cmd.Flags().Lookup(name)
				value, _ := pflag.UnquoteUsage(f)
				return b.usage(fmt.Errorf("--%s is missing: say --%s %s", name, name, value))
			}
		}
		r.Command, r.Args = cmd.Name(), args
		return b.do(cmd, r)
	}
	return cmd
}

// Words returns the words by which a command is called anew, in another program.
func Words(cmd *cobra.Command, args []string) []string {
	words := []string{cmd.Name()}
	cmd.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) {
		if !f.Changed || f.Name == "help" {
			return
		}
		if list, ok := f.Value.(pflag.SliceValue); ok {
			for _, value := range list.GetSlice() {
				words = append(words, "--"+f.Name+"="+value)
			}
			return
		}
		words = append(words, "--"+f.Name+"="+f.Value.String())
	})
	return append(append(words, "--"), args...)
}

func storeFlags(cmd *cobra.Command, r *Request, name string) {
	cmd.Flags().StringVar(&r.Store, name, "", "`URL` of the store")
	cmd.Flags().StringVar(&r.Group, "group", "", "`GROUP` of hosts")
}

func tlsFlags(cmd *cobra.Command, r *Request) {
	cmd.Flags().StringVar(&r.CA, "ca", "", "`FILE` with the certificates that vouch for the store's server")
	cmd.Flags().StringVar(&r.Certificate, "certificate", "", "`FILE` with your certificate")
	cmd.Flags().StringVar(&r.Private, "private", "", "`FILE` with the key of that certificate")
}

func (b builder) keygen() *cobra.Command {
	r := &Request{}
	cmd := &cobra.Command{
		Use:   "keygen",
		Short: "Make a key that signs policies",
		Long: `Make a key. Whoever has it can open any port of the fleet: keep it where policies are
published, and a copy of it somewhere safe. The public one, fleet.pub beside fleet.key, goes
to every host.`,
		Example: `  portcullis fleet keygen --out fleet.key`,
	}
	cmd.Flags().StringVar(&r.Out, "out", "", "write the key into `FILE`")
	return b.command(cmd, r, 0, 0, "", "out")
}

func (b builder) publish() *cobra.Command {
	r := &Request{}
	cmd := &cobra.Command{
		Use:   "publish FILE",
		Short: "Make a policy that of a group of hosts",
		Long: `Check a policy for every host of the group, show what changes and for which packets, and
sign and publish it after asking. Hosts get it in waves: one, 5 %, 25 %, all of them. Where
a host of a wave reverts it, refuses it or is lost, no further host gets it.

The settings of a group, in a file of their own, say what else belongs to it:
    layer: web.yaml             what the group has of its own, over the policy
    hosts: hosts/               a folder with h1.yaml for what host h1 has of its own
    probes:                     what has to succeed under a new policy, or the host reverts it
      - 22/tcp from h2,h3       one of these hosts connects to it
      - connect 192.0.2.9:53    it connects there
    within: 30s                 how long that may take
    bans: {hosts: true, most: 1000}    bans travel, those of hosts among them`,
		Example: `  portcullis fleet publish --to dir:/srv/fleet --key fleet.key --group web policy.yaml
  portcullis fleet publish --to etcd://10.0.0.1:2379 --key fleet.key --group web --waves none policy.yaml`,
	}
	storeFlags(cmd, r, "to")
	cmd.Flags().StringVar(&r.KeyFile, "key", "", "sign with the key in `FILE`")
	cmd.Flags().StringVar(&r.Settings, "settings", "", "`FILE` with the settings of the group")
	waveFlags(cmd, r)
	tlsFlags(cmd, r)
	return b.command(cmd, r, 1, 1, "one policy file", "to", "key", "group")
}

func waveFlags(cmd *cobra.Command, r *Request) {
	cmd.Flags().StringVar(&r.Waves, "waves", "1,5%,25%", "`WAVES` of hosts that get it before all do, or none")
	cmd.Flags().DurationVar(&r.Patience, "patience", time.Minute, "wait `TIME` for the hosts of a wave, beside the time that they have to confirm")
	cmd.Flags().BoolVarP(&r.Yes, "yes", "y", false, "do not ask")
}

func (b builder) status() *cobra.Command {
	r := &Request{}
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show what each host runs, and what is amiss",
		Long: `Show the hosts of each group: which bundle they run, whether they are there, what was changed
by hand, and what went wrong last. With a public key, what is published is verified.`,
		Example: `  portcullis fleet status --from dir:/srv/fleet
  portcullis fleet status --from etcd://10.0.0.1:2379 -o json | jq '.groups[].hosts[] | select(.problem != "")'`,
	}
	storeFlags(cmd, r, "from")
	cmd.Flags().StringArrayVar(&r.Public, "key", nil, "`FILE` with the public keys that hosts trust")
	tlsFlags(cmd, r)
	return b.command(cmd, r, 0, 0, "", "from")
}

func (b builder) diff() *cobra.Command {
	r := &Request{}
	cmd := &cobra.Command{
		Use:   "diff [HOST]",
		Short: "Show how hosts differ from what they are to run",
		Long: `Show for each host, or for one, what would change with the bundle that it is to run, for
which packets, and what was changed there by hand.`,
		Example: `  portcullis fleet diff --from dir:/srv/fleet --key fleet.pub h1`,
	}
	storeFlags(cmd, r, "from")
	cmd.Flags().StringArrayVar(&r.Public, "key", nil, "`FILE` with the public keys that hosts trust")
	tlsFlags(cmd, r)
	return b.command(cmd, r, 0, 1, "one host", "from", "key")
}

func (b builder) rollback() *cobra.Command {
	r := &Request{}
	cmd := &cobra.Command{
		Use:   "rollback",
		Short: "Publish again what a group ran before",
		Long: `Publish what the group ran before, under a new serial, to all hosts at once. A second
rollback goes one further back; --serial names a bundle.`,
		Example: `  portcullis fleet rollback --from dir:/srv/fleet --key fleet.key --group web`,
	}
	storeFlags(cmd, r, "from")
	cmd.Flags().StringVar(&r.KeyFile, "key", "", "sign with the key in `FILE`")
	cmd.Flags().Uint64Var(&r.Serial, "serial", 0, "go back to bundle `NUMBER`")
	waveFlags(cmd, r)
	cmd.Flags().Lookup("waves").DefValue, r.Waves = "none", "none"
	tlsFlags(cmd, r)
	return b.command(cmd, r, 0, 0, "", "from", "key")
}

func (b builder) revoke() *cobra.Command {
	r := &Request{}
	cmd := &cobra.Command{
		Use:   "revoke [KEY...]",
		Short: "Make a key worthless, or take a host out of its group",
		Long: `Revoke keys, by their files or names: hosts that hear of it take nothing more that these have
signed, ever. What the group runs is signed anew with --key, which the hosts must have, too,
and stays. A host that was away since may still take an older bundle of a revoked key: take
that key out of its fleet.yaml as well.

With --host, a host gets nothing more, and what it says and bans counts no more. It keeps
the policy that it has. Revoke its certificate, too, or its user in etcd.`,
		Example: `  portcullis fleet revoke --to dir:/srv/fleet --key new.key --group web old.pub
  portcullis fleet revoke --to dir:/srv/fleet --key fleet.key --group web --host h7`,
	}
	storeFlags(cmd, r, "to")
	cmd.Flags().StringVar(&r.KeyFile, "key", "", "sign with the key in `FILE`")
	cmd.Flags().StringArrayVar(&r.Hosts, "host", nil, "take `HOST` out of the group")
	cmd.Flags().StringArrayVar(&r.Public, "trust", nil, "`FILE` with other public keys that hosts trust, such as that which signed what the group runs")
	tlsFlags(cmd, r)
	return b.command(cmd, r, 0, -1, "", "to", "key")
}

func (b builder) ban() *cobra.Command {
	r := &Request{}
	cmd := &cobra.Command{
		Use:   "ban ADDRESS...",
		Short: "Ban addresses on all hosts of a group",
		Long: `Sign that all hosts of a group ban addresses or networks, if the settings of the group say
that bans travel. Whom a host trusts or lives on it does not ban.`,
		Example: `  portcullis fleet ban --to dir:/srv/fleet --key fleet.key --group web 203.0.113.7 --for 1h
  portcullis fleet ban --to dir:/srv/fleet --key fleet.key --group web 203.0.113.7 --end`,
	}
	storeFlags(cmd, r, "to")
	cmd.Flags().StringVar(&r.KeyFile, "key", "", "sign with the key in `FILE`")
	cmd.Flags().DurationVar(&r.For, "for", 0, "for `TIME`, from when a host hears of it; else until --end")
	cmd.Flags().StringVar(&r.Reason, "reason", "", "`TEXT` that says why")
	cmd.Flags().BoolVar(&r.End, "end", false, "end their bans")
	tlsFlags(cmd, r)
	return b.command(cmd, r, 1, -1, "an address", "to", "key")
}

func (b builder) serve() *cobra.Command {
	r := &Request{}
	cmd := &cobra.Command{
		Use:   "serve DIR",
		Short: "Hand out a fleet's folder by HTTPS",
		Long: `Hand out the folder that "publish --to dir:DIR" writes. Hosts that show a certificate say how
they are, each for itself alone; any web server does for the rest. Without a certificate of
yours the server makes an authority in DIR/.serve, whose ca.crt the hosts name as "ca:", and
--issue makes certificates for hosts and publishers.`,
		Example: `  portcullis fleet serve /srv/fleet --issue h1
  portcullis fleet serve /srv/fleet --listen :8443`,
	}
	cmd.Flags().StringVar(&r.Listen, "listen", ":8443", "listen at `ADDRESS`")
	cmd.Flags().StringVar(&r.Certificate, "certificate", "", "`FILE` with the server's certificate")
	cmd.Flags().StringVar(&r.Private, "private", "", "`FILE` with the key of that certificate")
	cmd.Flags().StringVar(&r.Clients, "clients", "", "`FILE` with the certificates that vouch for hosts")
	cmd.Flags().StringArrayVar(&r.Publishers, "publisher", nil, "whose certificate has this `NAME` may publish")
	cmd.Flags().StringArrayVar(&r.Names, "name", nil, "`NAME` or address of this server, beside those that it has itself")
	cmd.Flags().StringVar(&r.Issue, "issue", "", "make a certificate for `NAME`, NAME.crt and NAME.key here, and end")
	return b.command(cmd, r, 1, 1, "the folder")
}
