// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/firewall/monitor"
	"github.com/portcullis-firewall/portcullis/loader"
	datapath "github.com/portcullis-firewall/portcullis/maps"
	"github.com/portcullis-firewall/portcullis/policy"
)

// What is shown of a frame and of a flood, unless the flags say otherwise.
const (
	shownBytes    = 128 // its headers, in all but strange cases
	shownRate     = 100
	writtenRate   = 10_000
	writtenFrames = monitor.MaxSnaplen
)

// monitorFlags is what the flags of monitor say.
type monitorFlags struct {
	monitor.Request
	count int
	span  durationFlag
	write string
}

func (a *app) monitorCommand() *cobra.Command {
	var f monitorFlags
	cmd := &cobra.Command{
		Use:         "monitor",
		Short:       "Show packets that are dropped, as they come",
		Annotations: needsFilter,
		Long: `Show packets as they come: when, on which interface, what became of each and why, and
what it is. Packets that pass are shown with --pass, or if --reason or --rule asks for
them. The filter picks the packets itself, so one among millions is found. It shows so
many packets of each reason per second and CPU (--rate) that a flood of one hides no
other; how many were not shown is told once a second. Up to eight readers see what each
asks for. It goes on over a change of policy, and after "portcullis down" and "up".

With --write, packets go into a pcapng file that Wireshark opens, whole (--snaplen), with
the interface and a comment: "drop: closed port", "pass: 80/tcp". With -o json, each line
is an object.`,
		Example: `  portcullis monitor
  portcullis monitor --from 203.0.113.9
  portcullis monitor --to-port ssh
  portcullis monitor --port 443/tcp --on eth0 --pass
  portcullis monitor --reason "closed port" --for 10s -o json
  portcullis monitor --write drops.pcapng --count 1000
  ssh server portcullis monitor --write - | wireshark -k -i -`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			f.Snaplen = chosen(cmd, "snaplen", f.Snaplen, writtenFrames, f.write != "")
			f.Rate = chosen(cmd, "rate", f.Rate, writtenRate, f.write != "")
			return a.monitor(cmd.Context(), &f)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.From, "from", "", "only packets from `SOURCE`, an address or a network")
	flags.StringVar(&f.To, "to", "", "only packets to `ADDRESS`, or to a network")
	flags.StringVar(&f.Port, "port", "", "only packets from or to `PORT`: 443, 443/tcp or https")
	flags.StringVar(&f.ToPort, "to-port", "", "only packets to `PORT`")
	flags.StringSliceVar(&f.Interfaces, "on", nil, "only packets on `IFACE`")
	flags.StringSliceVar(&f.Reasons, "reason", nil, "only packets that count under `REASON`, as \"portcullis status\" lists them")
	flags.StringVar(&f.Rule, "rule", "", "only packets that `RULE` lets in")
	flags.BoolVar(&f.Pass, "pass", false, "show what passes, too")
	flags.IntVar(&f.count, "count", 0, "end after `N` packets")
	flags.Var(&f.span, "for", "end after `TIME`")
	flags.StringVar(&f.write, "write", "", "write a pcapng `FILE`; - is standard output")
	flags.IntVar(&f.Snaplen, "snaplen", shownBytes, fmt.Sprintf("take at most `N` bytes of a packet (with --write %d)", writtenFrames))
	flags.IntVar(&f.Rate, "rate", shownRate, fmt.Sprintf("show at most `N` packets of a reason per second and CPU (with --write %d)", writtenRate))
	_ = cmd.RegisterFlagCompletionFunc("on", func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		return a.completeFiltered(cmd, nil, "")
	})
	_ = cmd.RegisterFlagCompletionFunc("reason", wordsOf(monitor.ReasonNames))
	_ = cmd.RegisterFlagCompletionFunc("rule", func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		return a.running(cmd, func(p *policy.Policy) []string { return policy.Texts(p.Open) }), cobra.ShellCompDirectiveNoFileComp
	})
	_ = cmd.MarkFlagFilename("write", "pcapng")
	return cmd
}

// chosen returns what a flag says, or where it was not given and a file is written, what counts then.
func chosen(cmd *cobra.Command, flag string, value, written int, writes bool) int {
	if writes && !cmd.Flags().Changed(flag) {
		return written
	}
	return value
}

func (a *app) monitor(ctx context.Context, f *monitorFlags) error {
	switch {
	case f.count < 0:
		return usagef("--count %d: write 1 or more", f.count)
	case f.write != "" && a.output == asJSON:
		return usagef("--write writes a pcapng file, and -o json lines: leave one of them out")
	case f.write == "-" && toTerminal(a.screen):
		return usagef("--write - would write a file to your terminal: name a file, or a program behind |")
	}
	view, err := a.view(ctx)
	if err != nil {
		return err
	}
	o, err := options(f.Request, view)
	before, _ := dropped(view) // which the end may tell of
	view.Close()
	if err != nil {
		return err
	}
	if f.span.Duration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, f.span.Duration)
		defer cancel()
	}
	show := a.showPackets
	if f.write != "" {
		capture, err := a.createCapture(f)
		if err != nil {
			return fmt.Errorf("write %s: %w", f.write, err)
		}
		defer capture.Close()
		defer func() {
			fmt.Fprintf(a.stderr, "portcullis: %s\n", count(capture.Packets(), "packet", "packets"))
		}()
		show = func(told loader.Monitored) error {
			if err := capture.Write(told.Packets); err != nil {
				return fmt.Errorf("write %s: %w", f.write, err)
			}
			a.tellMissed(told.Missed)
			return nil
		}
	}
	m, err := a.firewall.Monitor(ctx, o)
	if err != nil {
		return err
	}
	defer m.Close()
	fmt.Fprintf(a.stderr, "portcullis: packets are shown as they come\n")
	shown, err := a.runMonitor(ctx, m, f.count, show)
	if err == nil && shown == 0 {
		a.tellNothing(context.WithoutCancel(ctx), before)
	}
	return err
}

// tellNothing says that nothing was shown, and what was dropped in that time: where that is much, the filters are at fault.
func (a *app) tellNothing(ctx context.Context, before uint64) {
	text := "nothing was shown"
	if view, err := a.firewall.View(ctx); err == nil {
		defer view.Close()
		if now, err := dropped(view); err == nil && now >= before { // else it has begun anew
			n := now - before
			what := "packets were"
			if n == 1 {
				what = "packet was"
			}
			text += fmt.Sprintf("; %s %s dropped meanwhile", monitor.Thousands(n), what)
		}
	}
	fmt.Fprintf(a.stderr, "portcullis: %s\n", text)
}

// dropped returns how many packets a filter has dropped.
func dropped(f interface {
	Sample(*loader.Sample) (*loader.Sample, error)
}) (n uint64, err error) {
	sample, err := f.Sample(nil)
	if err != nil {
		return 0, err
	}
	for _, t := range sample.Ledger {
		n += t.Dropped.Packets
	}
	return n, nil
}

// runMonitor shows packets until ctx ends, or so many have been shown; 0 is no end. It returns how many were shown.
func (a *app) runMonitor(ctx context.Context, m interface {
	Run(context.Context, func(loader.Monitored) error) error
}, most int, show func(loader.Monitored) error) (shown int, err error) {
	err = m.Run(ctx, func(told loader.Monitored) error {
		if most > 0 {
			told.Packets = told.Packets[:min(len(told.Packets), most-shown)]
		}
		a.warn(told.Notes...)
		if err := show(told); err != nil {
			return err
		}
		if shown += len(told.Packets); most > 0 && shown >= most {
			return errEnough
		}
		return nil
	})
	if errors.Is(err, errEnough) {
		err = nil
	}
	return shown, err
}

var errEnough = errors.New("that is enough")

// options asks the running filter what may be asked for.
func options(r monitor.Request, f interface {
	Policy() (*policy.Policy, error)
	Interfaces() ([]loader.Interface, error)
}) (o loader.MonitorOptions, err error) {
	p, err := f.Policy()
	if err != nil {
		return o, err
	}
	filtered, err := f.Interfaces()
	if err != nil {
		return o, err
	}
	var names []string
	for _, i := range filtered {
		names = append(names, i.Name)
		if text := i.UnfilteredText(); text != "" && slices.Contains(r.Interfaces, i.Name) {
			return o, errors.New(text) // else it would wait for packets that never come
		}
	}
	if o, err = r.Options(names, p.Open); err != nil {
		return o, usageError{err}
	}
	return o, nil
}

func (a *app) createCapture(f *monitorFlags) (*monitor.Capture, error) {
	application := "portcullis " + version
	if f.write != "-" {
		return monitor.CreateCapture(f.write, application, f.Snaplen)
	}
	signal.Ignore(unix.SIGPIPE) // whoever reads may go first, which is told
	return monitor.NewCapture(a.outlet, application, f.Snaplen)
}

func toTerminal(w io.Writer) bool {
	file, ok := w.(*os.File)
	return ok && isTerminal(file)
}

// shownView is a packet in JSON.
type shownView struct {
	Time            time.Time `json:"time"`
	Interface       string    `json:"interface"`
	Direction       string    `json:"direction"` // in, out
	Verdict         string    `json:"verdict"`
	Reason          string    `json:"reason,omitempty"`
	Rule            string    `json:"rule,omitempty"`
	Protocol        string    `json:"protocol,omitempty"`
	Source          string    `json:"source,omitempty"`
	SourcePort      *uint16   `json:"source_port,omitempty"`
	Destination     string    `json:"destination,omitempty"`
	DestinationPort *uint16   `json:"destination_port,omitempty"`
	Flags           []string  `json:"flags,omitempty"`
	ICMPType        *uint8    `json:"icmp_type,omitempty"`
	ICMPCode        *uint8    `json:"icmp_code,omitempty"`
	Length          int       `json:"length"`
	Packet          string    `json:"packet"`
	Frame           []byte    `json:"frame"` // its first bytes, in base64
}

// missedView is what was not shown, in JSON.
type missedView struct {
	NotShown uint64 `json:"not_shown"`
	Reason   string `json:"reason"`
}

const (
	inbound  = "in"
	outbound = "out"
)

func viewShown(p *loader.MonitoredPacket) shownView {
	v := shownView{Time: p.Time, Interface: p.Interface, Direction: inbound, Verdict: p.Reason.Verdict(), Rule: p.Rule,
		Length: p.Length, Packet: monitor.Describe(p.Frame, p.Ethernet), Frame: p.Frame}
	if p.Outbound {
		v.Direction = outbound
	}
	if !p.Reason.IsRule() {
		v.Reason = p.Reason.String()
	}
	read, ok := monitor.Read(p.Frame, p.Ethernet)
	if !ok {
		return v
	}
	v.Protocol, v.Source, v.Destination, v.Flags = read.Protocol, read.Source.String(), read.Destination.String(), read.Flags
	if read.HasPorts {
		v.SourcePort, v.DestinationPort = &read.SourcePort, &read.DestPort
	}
	if read.HasType {
		v.ICMPType, v.ICMPCode = &read.Type, &read.Code
	}
	return v
}

// showPackets prints packets, and what was not shown.
func (a *app) showPackets(told loader.Monitored) error {
	lines := json.NewEncoder(a.stdout)
	lines.SetEscapeHTML(false)
	for i := range told.Packets {
		p := &told.Packets[i]
		if a.output == asJSON {
			if err := lines.Encode(viewShown(p)); err != nil {
				return err
			}
			continue
		}
		where := p.Interface
		if p.Outbound {
			where += " out"
		}
		a.printf("%s  %s  %s  %s  %s, %s\n", p.Time.Format("15:04:05.000000"), where, p.Reason.Verdict(), folded(monitor.Why(p)),
			monitor.Describe(p.Frame, p.Ethernet), count(p.Length, "byte", "bytes"))
	}
	for _, reason := range slices.Sorted(maps.Keys(told.Missed)) {
		if a.output == asJSON {
			if err := lines.Encode(missedView{told.Missed[reason], missedName(reason)}); err != nil {
				return err
			}
			continue
		}
		a.printf("%s  %s: %s not shown\n", time.Now().Format("15:04:05.000000"), missedName(reason), monitor.Thousands(told.Missed[reason]))
	}
	return a.out.Flush()
}

// tellMissed says beside a file what is not in it.
func (a *app) tellMissed(missed map[datapath.Reason]uint64) {
	for _, reason := range slices.Sorted(maps.Keys(missed)) {
		fmt.Fprintf(a.stderr, "portcullis: %s: %s not written\n", missedName(reason), monitor.Thousands(missed[reason]))
	}
}

func missedName(reason datapath.Reason) string {
	if reason.IsRule() {
		return "let in by rules"
	}
	return reason.String()
}
