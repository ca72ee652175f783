// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/host"
	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/policy/quote"
)

// ErrOutgoing is returned for a packet of a recording that did not come in.
var ErrOutgoing = errors.New("this host sent it")

// NotFilteredError is returned for a packet of a recording that came in by an interface that is not filtered, so it passed.
type NotFilteredError struct{ Interface string }

func (e *NotFilteredError) Error() string { return quote.Name(e.Interface) + " is not filtered" }

// UnplayableError is returned for a packet of a recording of which nobody can say what becomes of it. The next one may be
// explained.
type UnplayableError struct{ Why string }

func (e *UnplayableError) Error() string { return e.Why }

func unplayable(format string, args ...any) error {
	return &UnplayableError{fmt.Sprintf(format, args...)}
}

// Recorded explains a packet of a recording as if it came in now: by the interface named, or else by that on which it was
// recorded, or the only one that is filtered. The error is ErrOutgoing for a packet that this host has sent.
func (e *Explainer) Recorded(p *Recorded, named string) (a *Answer, err error) {
	err = e.again(func() error {
		a, err = e.recorded(p, named)
		return err
	})
	return a, err
}

func (e *Explainer) recorded(p *Recorded, named string) (*Answer, error) {
	switch {
	case p.Out:
		return nil, ErrOutgoing
	case p.Loopback:
		return nil, &NotFilteredError{"lo"}
	case p.Problem != "":
		return nil, &UnplayableError{p.Problem}
	}
	iface, err := e.interfaceOfRecorded(p, named)
	if err != nil {
		return nil, err
	}
	on, err := e.at(iface)
	if err != nil {
		return nil, err
	}
	f := loader.Frame{Bytes: shorten(p), Ethernet: p.Ethernet, Type: p.Type, To: p.To}
	switch own, err := e.isOwn(p); {
	case err != nil:
		return nil, err
	case own, on.IsOwn(f):
		return nil, ErrOutgoing
	}
	a, err := e.frame(iface, f)
	switch {
	case errors.Is(err, loader.ErrNoFrame), errors.Is(err, unix.EINVAL):
		return nil, unplayable("%v", err)
	case err != nil:
		return nil, fmt.Errorf("packet %d: %w", p.Number, err)
	}
	a.Number = p.Number
	if !p.Time.IsZero() {
		at := p.Time.UTC()
		a.Time = &at
	}
	if p.Captured < len(p.Bytes) {
		a.Captured, a.Length = p.Captured, len(p.Bytes)
	}
	return a, nil
}

// interfaceOfRecorded returns the interface by which a packet of a recording came.
func (e *Explainer) interfaceOfRecorded(p *Recorded, named string) (string, error) {
	if named != "" {
		return named, nil
	}
	names, err := e.filtered()
	if err != nil {
		return "", err
	}
	name, here := p.Interface, false
	if p.Index != 0 {
		i, err := net.InterfaceByIndex(p.Index)
		if err != nil {
			return "", unplayable("it was recorded on interface number %d, which is not here: say by which one it came, as in \"on %s\"", p.Index, quote.Shell(names[0]))
		}
		name, here = i.Name, true
	} else if name != "" {
		_, err := net.InterfaceByName(name)
		here = err == nil
	}
	switch {
	case slices.Contains(names, name):
		return name, nil
	case here:
		return "", &NotFilteredError{name}
	case len(names) == 1: // of another host, or of all interfaces of this one
		return names[0], nil
	}
	const ask = "say by which one it came, as in \"on %s\" (filtered: %s)"
	if name != "" {
		return "", unplayable("it was recorded on %s, which is not here: "+ask, quote.Name(name), quote.Shell(names[0]), strings.Join(names, ", "))
	}
	return "", fmt.Errorf("the recording does not say on which interface packet %d came: "+ask, p.Number, quote.Shell(names[0]), strings.Join(names, ", "))
}

// isOwn reports whether a packet comes from an address of this host, where nothing else says who has sent it.
func (e *Explainer) isOwn(p *Recorded) (bool, error) {
	if p.Ethernet || p.In {
		return false, nil
	}
	var source netip.Addr
	switch b := p.Bytes; {
	case len(b) >= headerIPv4 && b[0]>>4 == 4:
		source = netip.AddrFrom4([4]byte(b[12:16]))
	case len(b) >= headerIPv6 && b[0]>>4 == 6:
		source = netip.AddrFrom16([16]byte(b[8:24]))
	default:
		return false, nil
	}
	if e.isLocal == nil {
		var err error
		if e.isLocal, err = host.LocalAddresses(); err != nil {
			return false, err
		}
	}
	return e.isLocal(source), nil
}
