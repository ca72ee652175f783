// SPDX-License-Identifier: Apache-2.0

// Package importcheck plays packets to rules of iptables, in netfilter, and to the policy that an import makes of them,
// and compares what comes in. It works in namespaces of its own, with cards of its own: nothing of the host is touched.
package importcheck

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/maps"
	"github.com/portcullis-firewall/portcullis/policy"
	"github.com/portcullis-firewall/portcullis/policy/iptables"
)

// Agreement is how rules and a policy, with the rules that stay behind it, decided about the same packets.
type Agreement struct {
	Packets  int `json:"packets"`
	Alike    int `json:"alike"`
	Narrower int `json:"narrower"` // let in by the rules, and not by the policy
	Wider    int `json:"wider"`    // let in by the policy, and not by the rules
	// NarrowerAt and WiderAt are the packets that were decided otherwise, by what they were for.
	NarrowerAt []Difference `json:"narrower_at"`
	WiderAt    []Difference `json:"wider_at"`
	LeftOut    []string     `json:"left_out,omitempty"` // rules that netfilter does not take here, with its reason
}

// Difference is packets for the same that were decided otherwise.
type Difference struct {
	What    string     `json:"what"` // such as 22/tcp on eth0
	Packets int        `json:"packets"`
	Source  netip.Addr `json:"source"` // of one of them
	To      netip.Addr `json:"to"`
}

func (a *Agreement) String() string {
	return fmt.Sprintf("%d packets: %d alike, %d narrower, %d wider", a.Packets, a.Alike, a.Narrower, a.Wider)
}

// Job is one comparison.
type Job struct {
	Rules  [2]string // of IPv4 and IPv6, as iptables-restore reads them
	Stay   [2]string // those that stay in netfilter behind the policy
	Sets   string    // what ipset restore reads
	Policy string    // the text of the policy
	Cards  []string
	Probes []iptables.Probe
	// Text decides by what the text of the policy says, as [policy.Rule.Admits] reads it, and loads no filter.
	Text bool
}

// tools load rules, by family.
var tools = [...]string{"iptables-restore", "ip6tables-restore"}

// noRules lets in everything.
const noRules = "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n"

// NewJob returns the comparison of what an import read with what it made of it.
func NewJob(r *iptables.Result, packets int, sets string) Job {
	j := Job{Policy: string(r.Policy.YAML()), Cards: r.Devices(), Probes: r.Probes(packets, 1), Sets: sets}
	known := make(map[string]bool)
	for line := range strings.Lines(sets) {
		if f := strings.Fields(line); len(f) > 2 && f[0] == "create" {
			known[f[1]] = true
		}
	}
	for i, family := range []int{4, 6} {
		j.Rules[i] = cmp.Or(r.RulesText(family), noRules)
		j.Stay[i] = cmp.Or(r.StayingRules(family), noRules)
		for _, name := range r.SetNames(family) {
			if !known[name] {
				known[name] = true // what it holds nobody knows: nothing
				j.Sets += fmt.Sprintf("create %s hash:net family %s\n", name, [...]string{"inet", "inet6"}[i])
			}
		}
	}
	return j
}

// bench is the two hosts.
type bench struct {
	rules, policy *side
	cards         []string
	owned         map[netip.Addr]bool
	marker        uint16
	hasSets       bool
}

// pinPath is that of the filter, in a bpf filesystem of its own.
const pinPath = "/sys/fs/bpf/check"

// newBench makes the hosts with the cards of all jobs.
func newBench(jobs []Job) (*bench, error) {
	b := &bench{owned: make(map[netip.Addr]bool)}
	for _, j := range jobs {
		b.cards = append(b.cards, j.Cards...)
	}
	slices.Sort(b.cards)
	b.cards = slices.Compact(b.cards)
	home, err := os.Open("/proc/thread-self/ns/net") // other threads will be elsewhere
	if err != nil {
		return nil, err
	}
	defer home.Close()
	here := fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), home.Fd())
	if b.rules, err = newSide("r", here, b.cards); err != nil {
		return nil, err
	}
	if b.policy, err = newSide("p", here, b.cards); err != nil {
		b.rules.close()
		return nil, err
	}
	return b, nil
}

func (b *bench) close() {
	b.rules.close()
	b.policy.close()
}

// check makes one comparison.
func (b *bench) check(ctx context.Context, j Job) (*Agreement, error) {
	if len(j.Cards) == 0 || len(j.Probes) == 0 {
		return nil, fmt.Errorf("there is nothing to play: the policy filters nothing")
	}
	a := &Agreement{Packets: len(j.Probes)}
	var fresh []netip.Addr
	for _, p := range j.Probes {
		if !b.owned[p.Dst] {
			b.owned[p.Dst] = true
			fresh = append(fresh, p.Dst)
		}
	}
	for _, s := range []*side{b.rules, b.policy} {
		if err := s.own(b.cards[0], fresh); err != nil {
			return nil, err
		}
	}
	left, err := b.load(ctx, &j)
	if err != nil {
		return nil, err
	}
	a.LeftOut = left
	// What was decided otherwise is played again: a limit may have been used up on one side and not on the other.
	rest := j.Probes
	var said *policy.Policy
	if j.Text {
		if said, err = policy.Parse("policy", []byte(j.Policy)); err != nil {
			return nil, err
		}
	}
	var wider, narrower []iptables.Probe
	for round := 0; ; round++ {
		wider, narrower, err = b.play(ctx, rest, said)
		if err != nil {
			return nil, err
		}
		if rest = slices.Concat(wider, narrower); len(rest) == 0 || round == 2 {
			break
		}
		rand.New(rand.NewPCG(uint64(round), 1)).Shuffle(len(rest), func(i, k int) { rest[i], rest[k] = rest[k], rest[i] })
		if _, err := b.load(ctx, &j); err != nil {
			return nil, err
		}
	}
	a.Wider, a.Narrower = len(wider), len(narrower)
	a.Alike = a.Packets - a.Wider - a.Narrower
	a.WiderAt, a.NarrowerAt = differences(wider), differences(narrower)
	return a, nil
}

// load puts rules and policy in force anew. Rules that netfilter does not take are left out on both sides, and returned.
func (b *bench) load(ctx context.Context, j *Job) (left []string, err error) {
	for _, s := range []*side{b.rules, b.policy} {
		if j.Sets == "" && !b.hasSets {
			continue
		}
		for _, tool := range tools { // sets in use stay
			if err := s.run(noRules, tool); err != nil {
				return nil, err
			}
		}
		if err := s.run("", "ipset", "destroy"); err != nil {
			return nil, err
		}
		if err := s.run(j.Sets, "ipset", "restore"); err != nil {
			return nil, err
		}
	}
	b.hasSets = j.Sets != ""
	for i, tool := range tools {
		text, refused, err := b.rules.restore(tool, j.Rules[i])
		if err != nil {
			return nil, err
		}
		j.Rules[i] = text
		left = append(left, refused...)
		if j.Stay[i], _, err = b.policy.restore(tool, j.Stay[i]); err != nil {
			return nil, err
		}
	}
	if j.Text {
		return left, nil
	}
	p, err := policy.Parse("policy", []byte(j.Policy))
	if err != nil {
		return nil, err
	}
	var blocked []netip.Prefix
	for _, s := range p.Block {
		blocked = append(blocked, s.Prefixes()...)
	}
	blocking, err := maps.NewBlocking([]maps.BlockList{{Name: "block", Prefixes: blocked}}, nil)
	if err != nil {
		return nil, err
	}
	p.Interfaces, p.MaxFlows = b.cards, policy.MinMaxFlows
	return left, b.policy.do(func() error {
		_, err := loader.Up(ctx, loader.Options{PinPath: pinPath, Interfaces: b.cards, Mode: loader.ModeTC, Policy: p, Blocking: blocking})
		return err
	})
}

// batch is how many packets are sent before what was let in is read.
const batch = 256

// play sends packets to both sides and returns those that they decided otherwise. What the policy says itself counts where
// no filter is loaded.
func (b *bench) play(ctx context.Context, probes []iptables.Probe, said *policy.Policy) (wider, narrower []iptables.Probe, err error) {
	unpin, err := pin()
	if err != nil {
		return nil, nil, err
	}
	defer unpin()
	for part := range slices.Chunk(probes, batch) {
		if err := ctx.Err(); err != nil {
			return nil, nil, err
		}
		of := make(map[uint16]int)
		for i := range part {
			if b.marker++; b.marker == 0 {
				b.marker++
			}
			of[b.marker] = i
			frame := frameOf(part[i], b.marker)
			for _, s := range []*side{b.rules, b.policy} {
				if err := s.put(part[i].Interface, frame); err != nil {
					return nil, nil, err
				}
			}
		}
		var let [2][]bool
		for k, s := range []*side{b.rules, b.policy} {
			markers, err := s.seen()
			if err != nil {
				return nil, nil, err
			}
			let[k] = make([]bool, len(part))
			for _, m := range markers {
				if i, ok := of[m]; ok {
					let[k][i] = true
				}
			}
		}
		for i, p := range part {
			switch byRules, byPolicy := let[0][i], let[1][i] && (said == nil || lets(said, p)); {
			case byPolicy && !byRules:
				wider = append(wider, p)
			case byRules && !byPolicy:
				narrower = append(narrower, p)
			}
		}
	}
	return wider, narrower, nil
}

// lets reports whether a policy lets a packet in that begins something, within its limits.
func lets(p *policy.Policy, k iptables.Probe) bool {
	for _, s := range p.Block {
		if slices.ContainsFunc(s.Prefixes(), func(n netip.Prefix) bool { return n.Contains(k.Src) }) {
			return false
		}
	}
	here := p.For(k.Interface)
	if here.Input == policy.Accept {
		return true
	}
	packet := policy.Packet{Interface: k.Interface, Protocol: k.Protocol, Port: k.Port, Source: k.Src, Destination: k.Dst}
	if slices.ContainsFunc(p.InputRules(), func(r policy.Rule) bool { return r.Admits(packet) }) {
		return true
	}
	types := here.ICMP.Types4()
	switch {
	case k.Protocol == unix.IPPROTO_ICMPV6 && k.Src.Is6():
		types = here.ICMP.Types6()
	case k.Protocol != unix.IPPROTO_ICMP || k.Src.Is6():
		return false
	}
	return types[k.ICMP/64]>>(k.ICMP%64)&1 != 0
}

// differences sums up packets by what they are for.
func differences(probes []iptables.Probe) []Difference {
	out := []Difference{}
	for _, p := range probes {
		what := p.Protocol.String()
		switch {
		case policy.ProtocolIndex(p.Protocol) >= 0:
			what = fmt.Sprintf("%d/%s", p.Port, p.Protocol)
		case p.Protocol == 1 || p.Protocol == 58:
			what = fmt.Sprintf("ICMP type %d", p.ICMP)
		}
		what += " on " + p.Interface
		i := slices.IndexFunc(out, func(d Difference) bool { return d.What == what && d.Source.Is4() == p.Src.Is4() })
		if i < 0 {
			i = len(out)
			out = append(out, Difference{What: what, Source: p.Src, To: p.Dst})
		}
		out[i].Packets++
	}
	slices.SortStableFunc(out, func(a, b Difference) int { return b.Packets - a.Packets })
	return out
}
