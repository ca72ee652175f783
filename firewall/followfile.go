// SPDX-License-Identifier: Apache-2.0

package firewall

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/portcullis-firewall/portcullis/policy"
)

// SetConfig makes another file the one that is followed.
func (fl *Follower) SetConfig(config string) { fl.config, fl.seen = config, "" }

// reject tells what is wrong with the policy file, and what that means.
func (fl *Follower) reject(err error, meaning string) {
	fl.problem = "the policy file is not in force: " + strings.ReplaceAll(err.Error(), "\n", "; ")
	switch missing := errors.Is(err, fs.ErrNotExist); {
	case missing && fl.existed:
		fl.note(Error, "%s is gone%s", fl.config, meaning)
	case missing:
		fl.note(Error, "there is no %s%s", fl.config, meaning)
	default:
		fl.note(Error, "%v%s", err, meaning)
	}
}

// read reads the policy file.
func (fl *Follower) read() (*source, error) {
	text, err := readTrusted(fl.config)
	fl.seen = seenAs(text, err)
	if err != nil {
		return nil, err
	}
	fl.existed = true
	p, err := policy.Parse(fl.config, text)
	if err != nil {
		return nil, err
	}
	return &source{path: fl.config, text: text, policy: p}, nil
}

// accept takes it down that the policy file is good.
func (fl *Follower) accept(s *source) {
	if fl.problem != "" {
		fl.note(Info, "%s is good again", fl.config)
	}
	fl.problem, fl.named = "", s.policy.Interfaces
}

// seenAs stands for what a file is, or why it cannot be read.
func seenAs(text []byte, err error) string {
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// Changed reports whether the policy file is another than when it was last read.
func (fl *Follower) Changed() bool { return seenAs(readTrusted(fl.config)) != fl.seen }

// Steady reports whether the policy file is as it was at the last call.
func (fl *Follower) Steady() bool {
	now := seenAs(readTrusted(fl.config))
	steady := now == fl.steady
	fl.steady = now
	return steady
}

// guard refuses a file that takes away what it takes to repair it: one under which no sshd could be reached that can be
// now.
func (fl *Follower) guard(s *source, f Filter) error {
	closed, open, err := fl.fw.closedSSH(s.policy)
	if err != nil {
		return err
	}
	if len(closed) == 0 || len(open) > 0 {
		return nil
	}
	now, err := f.Policy()
	if err != nil {
		return err
	}
	if _, open, err = fl.fw.closedSSH(now); err != nil || len(open) == 0 {
		return err
	}
	return fmt.Errorf("%s: an sshd listens on port %d, which no rule opens: add \"%d/tcp\", or run \"portcullis apply --force\"",
		fl.config, closed[0], closed[0])
}

// fallBack returns the policy for a host without a filter and without a good file.
func (fl *Follower) fallBack() (*policy.Policy, error) {
	path := fl.fw.lastGoodPath()
	p, err := fl.fw.lastGood()
	if err == nil {
		fl.note(Error, "the last good policy is used instead, from %s", path)
		return p, nil
	}
	if path != "" && !errors.Is(err, fs.ErrNotExist) {
		fl.complain(err)
	}
	if p, err = fl.fw.builtInAtBoot(); err != nil {
		return nil, err
	}
	fl.note(Error, "there is no last good policy either: the built-in one is used, which opens nothing but %s", strings.Join(texts(p.Open), ", "))
	return p, nil
}
