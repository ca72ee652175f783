// SPDX-License-Identifier: Apache-2.0

package firewall

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/policy"
)

// comparison is how the policy file of a running filter stands to what is in force.
type comparison struct {
	builtIn    bool     // there has been no file yet
	gone       bool     // the file that was put in force
	drift      []string // sentences
	unfiltered []string // interfaces that the file names
}

func (fw *Firewall) compare(s *loader.Status) (c comparison) {
	source, err := readSource(s.Config)
	if errors.Is(err, fs.ErrNotExist) {
		c.builtIn = s.Config == DefaultConfig && fw.isBuiltIn(s.Saved)
		c.gone = !c.builtIn
		return c
	}
	if err != nil {
		c.drift = []string{fmt.Sprintf("the policy file is no longer good, and the next \"portcullis up\" will refuse it: %v", err)}
		return c
	}
	file := source.policy
	if len(file.Interfaces) > 0 { // or the default route tells, and what was named on the command line
		for _, name := range s.Saved.Interfaces {
			if !slices.Contains(file.Interfaces, name) {
				c.drift = append(c.drift, fmt.Sprintf("%s is filtered, but the policy file does not name it: after a reboot it is open; \"portcullis save\" adds it", name))
			}
		}
		for _, name := range file.Interfaces {
			if !slices.Contains(s.Saved.Interfaces, name) {
				c.unfiltered = append(c.unfiltered, name)
			}
		}
	}
	file.Interfaces = s.Saved.Interfaces
	const ways = "\"portcullis apply\" applies the file, \"portcullis save\" overwrites it"
	switch changes := policy.Diff(s.Saved, file); len(changes) {
	case 0:
	case 1:
		c.drift = append(c.drift, fmt.Sprintf("%s differs from what is in force (%s): %s", s.Config, changes[0], ways))
	default:
		c.drift = append(c.drift, fmt.Sprintf("%s differs from what is in force in %d places: \"portcullis diff\" shows them, %s", s.Config, len(changes), ways))
	}
	return c
}

// warnings are what status says of it.
func (c *comparison) warnings() []string {
	out := slices.Clone(c.drift)
	for _, name := range c.unfiltered {
		out = append(out, fmt.Sprintf("the policy file names %s, which is not filtered: \"portcullis up %s\"", name, name))
	}
	return out
}
