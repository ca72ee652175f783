// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/portcullis-firewall/portcullis/firewall"
	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/maps"
	"github.com/portcullis-firewall/portcullis/policy"
	"github.com/portcullis-firewall/portcullis/policy/quote"
)

// Explainer explains packets at a firewall that is up.
type Explainer struct {
	ctx    context.Context
	fw     *firewall.Firewall
	filter firewall.Filter
	on     map[string]*loader.Explainer // by interface
	file   string
	lines  map[policy.RuleKey]policy.RuleLine
	unread error                         // why the file cannot be read
	keys   map[*maps.Rule]policy.RuleKey // of rules that have decided: of one with many sources it takes a while

	isLocal func(netip.Addr) bool // nil: nobody has asked
}

// Open begins to explain. The context bounds the wait for a command that is changing the filter.
func Open(ctx context.Context, fw *firewall.Firewall) (*Explainer, error) {
	e := &Explainer{ctx: ctx, fw: fw}
	return e, e.open()
}

func (e *Explainer) open() (err error) {
	if e.filter, err = e.fw.View(e.ctx); err != nil {
		return err
	}
	e.on, e.keys = make(map[string]*loader.Explainer), make(map[*maps.Rule]policy.RuleKey)
	e.file, e.lines, e.unread = e.fw.RuleLines(e.filter)
	return nil
}

// Close ends it.
func (e *Explainer) Close() {
	if e.filter == nil {
		return
	}
	for _, on := range e.on {
		on.Close()
	}
	_ = e.filter.Close()
	e.filter = nil
}

// mostPolicies is how many policies may come one after the other while a packet is explained.
const mostPolicies = 10

// again asks, and where another policy is put in force meanwhile, that one.
func (e *Explainer) again(ask func() error) error {
	for range mostPolicies {
		if err := ask(); !errors.Is(err, loader.ErrPolicyChanged) {
			return err
		}
		e.Close()
		if err := e.open(); err != nil {
			return err
		}
	}
	return loader.ErrPolicyChanged
}

// frame explains a frame that comes in by an interface.
func (e *Explainer) frame(iface string, f loader.Frame) (*Answer, error) {
	on, err := e.at(iface)
	if err != nil {
		return nil, err
	}
	x, err := on.Explain(f)
	if err != nil {
		return nil, err
	}
	return e.answer(on, x)
}

// at returns what explains packets that come in by an interface.
func (e *Explainer) at(iface string) (*loader.Explainer, error) {
	if on := e.on[iface]; on != nil {
		return on, nil
	}
	on, err := e.filter.Explainer(iface)
	if err != nil {
		return nil, err
	}
	e.on[iface] = on
	return on, nil
}

// Explain answers a request, for each of its packets.
func (e *Explainer) Explain(r Request) (answers []*Answer, err error) {
	err = e.again(func() error {
		answers, err = e.request(r)
		return err
	})
	return answers, err
}

func (e *Explainer) request(r Request) ([]*Answer, error) {
	iface, to, err := e.place(r)
	if err != nil {
		return nil, err
	}
	var answers []*Answer
	for _, w := range r.Packets {
		a, err := e.frame(iface, loader.Frame{Bytes: r.packet(w, to)})
		if err != nil {
			return nil, err
		}
		if a.Reason == blocked {
			network, err := firewall.BlockedNetwork(e.filter, a.List, r.Source)
			if err != nil {
				return nil, err
			}
			a.setNetwork(network)
		}
		if r.To.IsValid() && !a.Forward && a.Step > int(maps.StepForward) {
			e.warnOfNobody(a, to)
		}
		e.warnOfWay(a, w, to)
		answers = append(answers, a)
	}
	return answers, nil
}

// warnOfNobody warns of an address to which packets come that is not this host's, where it routes them nowhere.
func (e *Explainer) warnOfNobody(a *Answer, to netip.Addr) {
	if route, _ := e.fw.RouteTo(to); !route.Here {
		a.Warnings = append(a.Warnings, fmt.Sprintf("%s is none of this host's addresses, and packets from %s are not routed there: whatever the filter says, it ends here", to, a.Interface))
	}
}

// place returns the interface and the address to which the packets of a request come.
func (e *Explainer) place(r Request) (iface string, to netip.Addr, err error) {
	route, unreachable := e.fw.RouteTo(r.Source)
	if route.Own && r.On == "" { // by an interface, somebody may say that he is this host
		return "", to, fmt.Errorf("%s is an address of this host: what that sends to itself goes by the loopback interface, which is not filtered", r.Source)
	}
	if iface, err = e.interfaceOf(r, route, unreachable); err != nil {
		return "", to, err
	}
	if _, err := e.at(iface); err != nil || r.To.IsValid() {
		return iface, r.To, err
	}
	own, err := e.fw.AddressesOn(iface)
	if err != nil {
		return "", to, err
	}
	linkLocal := r.Source.IsLinkLocalUnicast()
	own = slices.DeleteFunc(own, func(a netip.Addr) bool { return a.Is4() != r.Source.Is4() })
	slices.SortStableFunc(own, func(a, b netip.Addr) int {
		return order(a.IsLinkLocalUnicast() == linkLocal, b.IsLinkLocalUnicast() == linkLocal)
	})
	switch {
	case slices.Contains(own, route.Local):
		return iface, route.Local, nil
	case len(own) > 0:
		return iface, own[0], nil
	case route.Local.IsValid() && route.Local.Is4() == r.Source.Is4():
		return iface, route.Local, nil
	}
	return "", to, fmt.Errorf("%s has no address that %s could write to: name one, as in \"to %s\"", iface, r.Source,
		map[bool]string{true: "192.0.2.1", false: "2001:db8::1"}[r.Source.Is4()])
}

// order puts true before false.
func order(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	}
	return 1
}

// interfaceOf returns the interface of a request: that which it names, the filtered one that the way to the source leads out
// by, or the only one.
func (e *Explainer) interfaceOf(r Request, route firewall.Route, unreachable error) (string, error) {
	if r.On != "" {
		return r.On, nil
	}
	names, err := e.filtered()
	if err != nil {
		return "", err
	}
	for _, name := range route.Interfaces {
		if slices.Contains(names, name) {
			return name, nil
		}
	}
	if len(names) == 1 {
		return names[0], nil
	}
	list := strings.Join(names, ", ")
	if unreachable != nil {
		return "", fmt.Errorf("no route leads to %s: say by which interface it comes, as in \"on %s\" (filtered: %s)", r.Source, quote.Shell(names[0]), list)
	}
	return "", fmt.Errorf("packets of %s come in by %s, which is not filtered, so they pass: to ask about another interface, name it, as in \"on %s\" (filtered: %s)",
		r.Source, strings.Join(route.Interfaces, ", "), quote.Shell(names[0]), list)
}

// filtered returns the interfaces that are filtered.
func (e *Explainer) filtered() (names []string, err error) {
	all, err := e.filter.Interfaces()
	if err != nil {
		return nil, err
	}
	for _, i := range all {
		names = append(names, i.Name)
	}
	if len(names) == 0 {
		return nil, errors.New("no interface is there that is filtered: \"portcullis status\" says what is waited for")
	}
	return names, nil
}

const mostKeys = 1000 // each time the rules are read anew, they are other ones

// keyOf returns the key of a rule that has decided.
func (e *Explainer) keyOf(r *maps.Rule) policy.RuleKey {
	key, ok := e.keys[r]
	if !ok {
		if len(e.keys) >= mostKeys {
			clear(e.keys)
		}
		key = r.Rule.Key()
		e.keys[r] = key
	}
	return key
}
