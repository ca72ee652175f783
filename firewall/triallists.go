// SPDX-License-Identifier: Apache-2.0

package firewall

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"strings"

	"github.com/portcullis-firewall/portcullis/firewall/savefile"
	"github.com/portcullis-firewall/portcullis/policy"
	"github.com/portcullis-firewall/portcullis/policy/addrset"
)

// A policy in force tells of its lists by digest. The end of a trial needs what they held, whatever has become of their
// files.

// listsFile has what was blocked and trusted before a trial, a list and a network a line.
const listsFile = "before-lists"

// trustedName stands for what is trusted in the place of a list: no list has that name.
const trustedName = "trust:"

// saveLists keeps what a filter blocks and trusts by lists, where there are any.
func (c *change) saveLists(f Filter) error {
	p, err := f.Policy()
	if err != nil || areKnown(p) {
		return err
	}
	var text bytes.Buffer
	err = f.EachBlocked(func(list string, network netip.Prefix) { fmt.Fprintf(&text, "%s %s\n", list, network) })
	if err != nil {
		return err
	}
	trusted, err := f.Trusted()
	if err != nil {
		return err
	}
	for _, network := range addrset.Prefixes(trusted) {
		fmt.Fprintf(&text, "%s %s\n", trustedName, network)
	}
	if err := savefile.SavePrivate(c.fw.store.Path(listsFile), text.Bytes()); err != nil {
		return fmt.Errorf("keep what is blocked for the end of the trial: %w", err)
	}
	return nil
}

// areKnown reports whether all that a policy blocks and trusts is known.
func areKnown(p *policy.Policy) bool {
	for _, list := range [][]policy.Source{p.Block, p.Trust} {
		for _, s := range list {
			if !s.IsKnown() {
				return false
			}
		}
	}
	return true
}

// restoreLists gives lists of which only the digest is known what they held before a trial.
func (fw *Firewall) restoreLists(p *policy.Policy) error {
	if areKnown(p) {
		return nil
	}
	text, err := os.ReadFile(fw.store.Path(listsFile))
	if errors.Is(err, fs.ErrNotExist) {
		err = errors.New("what was blocked before the trial has not been kept")
	}
	if err != nil {
		return err
	}
	held := make(map[string][]netip.Prefix)
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		list, network, _ := strings.Cut(lines.Text(), " ")
		prefix, err := netip.ParsePrefix(network)
		if err != nil {
			return fmt.Errorf("%s is damaged: %w", fw.store.Path(listsFile), err)
		}
		held[list] = append(held[list], prefix)
	}
	give := func(s *policy.Source, networks []netip.Prefix) {
		if !s.IsKnown() {
			s.Holds = &policy.Networks{Count: s.Holds.Count, Digest: s.Holds.Digest, Prefixes: append([]netip.Prefix{}, networks...)}
		}
	}
	for i := range p.Block {
		give(&p.Block[i], held[p.Block[i].List])
	}
	// Of what is trusted nobody counts by which list it is.
	for i := range p.Trust {
		if !p.Trust[i].IsKnown() {
			give(&p.Trust[i], held[trustedName])
			held[trustedName] = nil
		}
	}
	return nil
}
