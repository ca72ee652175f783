// SPDX-License-Identifier: Apache-2.0

package publish

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/portcullis-firewall/portcullis/firewall/fleet"
	"github.com/portcullis-firewall/portcullis/maps"
	"github.com/portcullis-firewall/portcullis/policy"
	"github.com/portcullis-firewall/portcullis/policy/packets"
)

// reader reads the policies of bundles, with the lists that it has or finds in the store.
type reader struct {
	f        *Fleet
	lists    map[string][]byte    // by digest
	policies map[string]parsed    // by their texts: most hosts of a group have the same
	changes  map[[2]string]change // from one to the other
}

func (f *Fleet) newReader(lists map[string][]byte) *reader {
	if lists == nil {
		lists = make(map[string][]byte)
	}
	return &reader{f, lists, make(map[string]parsed), make(map[[2]string]change)}
}

type parsed struct {
	policy *policy.Policy
	err    error
}

// change is what differs between two policies.
type change struct{ policy, packets []string }

const listRoot = "/lists/"

func render(b *fleet.Bundle, h *fleet.Host) (string, error) {
	return b.Render(h, func(digest string) string { return listRoot + digest })
}

// parse reads what a bundle comes to on a host.
func (r *reader) parse(ctx context.Context, text string) (*policy.Policy, error) {
	if p, ok := r.policies[text]; ok {
		return p.policy, p.err
	}
	p, err := r.read(ctx, text)
	r.policies[text] = parsed{p, err}
	return p, err
}

func (r *reader) read(ctx context.Context, text string) (*policy.Policy, error) {
	read := policy.Reader{ReadList: func(file string) ([]byte, error) {
		digest := path.Base(file)
		if path.Dir(file)+"/" != listRoot || !fleet.IsDigest(digest) {
			return nil, fmt.Errorf("%s is a file of the host, of which nobody knows here what it holds: name a file beside the policy, which is published with it", file)
		}
		if list, ok := r.lists[digest]; ok {
			return list, nil
		}
		object, err := r.f.Store.Get(ctx, fleet.ListKey(digest))
		if err != nil {
			return nil, err
		}
		if fleet.Digest(object.Value) != digest {
			return nil, fmt.Errorf("the list %.12s… is not the one that was signed", digest)
		}
		r.lists[digest] = object.Value
		return object.Value, nil
	}}
	p, err := read.Parse(fleet.PolicyFile, []byte(text))
	if err != nil {
		return nil, err
	}
	return p, maps.CheckCapacity(p)
}

// Difference is what changes on some hosts.
type Difference struct {
	Hosts   []string `json:"hosts"`
	Changes []string `json:"changes"` // of the policy
	Packets []string `json:"packets"` // who is let in, and through
}

// differences returns what changes on which hosts. A host runs a bundle of which the publisher may know nothing, as before is
// nil then.
func (r *reader) differences(ctx context.Context, hosts []Host, before func(Host) *fleet.Bundle, to *fleet.Bundle, group string) (out []Difference, err error) {
	if len(hosts) == 0 {
		example := fleet.ExampleHost(group, to.Policy, to.Layer)
		hosts = []Host{{Status: fleet.Status{Name: example.Name, Group: group, Facts: example.Facts}}}
	}
	same := make(map[string]int) // places in out, by what they say
	var wrong []string
	for _, h := range hosts {
		host := &fleet.Host{Name: h.Name, Group: group, Facts: h.Facts}
		is, err := render(to, host)
		if err == nil {
			_, err = r.parse(ctx, is)
		}
		if err != nil {
			wrong = append(wrong, fmt.Sprintf("on host %s: %v", h.Name, err))
			continue
		}
		was := ""
		if b := before(h); b != nil {
			was, _ = render(b, host) // or nobody knows what runs there
		}
		c := r.compare(ctx, was, is)
		d := Difference{Hosts: []string{h.Name}, Changes: c.policy, Packets: c.packets}
		id := strings.Join(d.Changes, "\n") + "\n\n" + strings.Join(d.Packets, "\n")
		if at, ok := same[id]; ok {
			out[at].Hosts = append(out[at].Hosts, h.Name)
			continue
		}
		same[id] = len(out)
		out = append(out, d)
	}
	if len(wrong) > 0 {
		const most = 5
		if len(wrong) > most {
			wrong = append(wrong[:most:most], fmt.Sprintf("so it is on %d more hosts", len(wrong)-most))
		}
		return out, fmt.Errorf("%s", strings.Join(wrong, "\n"))
	}
	return out, nil
}

// compare returns what differs between the texts of two policies, the second of which is good.
func (r *reader) compare(ctx context.Context, before, after string) change {
	id := [2]string{before, after}
	if c, ok := r.changes[id]; ok {
		return c
	}
	is, _ := r.parse(ctx, after)
	was := policy.Default()
	if before != "" {
		if p, err := r.parse(ctx, before); err == nil {
			was = p
		}
	}
	c := change{policy: []string{}, packets: []string{}}
	for _, one := range policy.Diff(was, is) {
		c.policy = append(c.policy, one.String())
	}
	if len(c.policy) > 0 {
		for _, one := range packets.Diff(was, is) {
			c.packets = append(c.packets, one.String())
		}
	}
	r.changes[id] = c
	return c
}

// DiffReport is how a host differs from what it is to run.
type DiffReport struct {
	Host    string   `json:"host"`
	Serial  uint64   `json:"serial"` // that it runs
	Target  uint64   `json:"target"` // that it is to run
	Present bool     `json:"present"`
	Changes []string `json:"changes"` // from what it runs to what it is to run
	Packets []string `json:"packets"`
	Drift   []string `json:"drift"` // what was changed there by hand
	Problem string   `json:"problem"`
}

// Diff returns how hosts of a group, or one of them, differ from what they are to run.
func (f *Fleet) Diff(ctx context.Context, group, host string) ([]DiffReport, error) {
	c, err := f.existing(ctx, group)
	if err != nil {
		return nil, err
	}
	hosts, err := f.Hosts(ctx, group, c.Pointer.RevokedHosts)
	if err != nil {
		return nil, err
	}
	if host != "" {
		if hosts = slices.DeleteFunc(hosts, func(h Host) bool { return h.Name != host }); len(hosts) == 0 {
			return nil, fmt.Errorf("there is no host %q in group %s: \"portcullis fleet status\" lists those that there are", host, group)
		}
	}
	r := f.newReader(nil)
	running := f.running(ctx, c)
	reports := []DiffReport{}
	for _, h := range hosts {
		d := DiffReport{Host: h.Name, Serial: h.Serial, Present: h.Present, Changes: []string{}, Packets: []string{}, Drift: h.Drift, Problem: h.Problem}
		target, ok := c.Pointer.For(h.Name)
		to := running(Host{Status: fleet.Status{Group: group, Bundle: target.Bundle, Serial: target.Serial}})
		if d.Target = target.Serial; ok && to != nil && target.Bundle != h.Bundle {
			found, err := r.differences(ctx, []Host{h}, running, to, group)
			if err != nil {
				d.Problem = err.Error()
			}
			for _, one := range found {
				d.Changes, d.Packets = one.Changes, one.Packets
			}
		}
		reports = append(reports, d)
	}
	return reports, nil
}
