// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strconv"

	"github.com/portcullis-firewall/portcullis/firewall/savefile"
	"github.com/portcullis-firewall/portcullis/policy"
)

// loadTrusted reads a policy file that nobody else can change.
func loadTrusted(path string, also ...uint32) (*policy.Policy, error) {
	p, err := policy.Load(path)
	if err != nil {
		return nil, err
	}
	return p, refuseUntrusted(path, also...)
}

// refuseUntrusted keeps what a stranger wrote from becoming the policy.
func refuseUntrusted(path string, also ...uint32) error {
	if err := savefile.Check(path, also...); err != nil {
		return fmt.Errorf("the policy file is not trusted: %w", err)
	}
	return nil
}

// invoker returns the user who ran sudo: a file of his that he names may be
// put in force, as he could put in force anything.
func (a *app) invoker() []uint32 {
	uid, err := strconv.ParseUint(a.getenv("SUDO_UID"), 10, 32)
	if err != nil {
		return nil
	}
	return []uint32{uint32(uid)}
}
