// SPDX-License-Identifier: Apache-2.0

package firewall

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/portcullis-firewall/portcullis/firewall/savefile"
	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/maps"
	"github.com/portcullis-firewall/portcullis/policy"
)

// source is a policy and where it comes from.
type source struct {
	path   string
	text   []byte // of the file
	policy *policy.Policy
	lists  *listFiles // that it names; nil where nothing was read
	// mistakes are those of list files whose last good copies stand in for them, or nil.
	mistakes error
	// unguarded says why the policy may block more that this host lives on than could be taken out, or is nil.
	unguarded error
	builtIn   bool // there is no file
}

// stamp stands for what the file and its list files held.
func (s *source) stamp() string { return stamp(s.path, s.text, s.lists) }

// readSource reads a policy file that nobody else can change, but for the users named, nor its list files.
func (fw *Firewall) readSource(path string, also ...uint32) (*source, error) {
	text, err := readTrusted(path, also...)
	if err != nil {
		return nil, err
	}
	return parseSource(path, text, fw.newListFiles(also...))
}

// parseSource reads a policy that a filter has room for.
func parseSource(path string, text []byte, lists *listFiles) (*source, error) {
	p, err := lists.reader().Parse(path, text)
	if err != nil {
		return nil, err
	}
	if err := maps.CheckCapacity(p); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return &source{path: path, text: text, policy: p, lists: lists}, nil
}

// readFile returns the text of a policy file.
func readFile(path string) ([]byte, error) {
	text, err := policy.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read policy: %w", err)
	}
	return text, nil
}

// readTrusted is readFile for what is to be put in force: it keeps what a stranger wrote from becoming the policy.
func readTrusted(path string, also ...uint32) ([]byte, error) {
	text, err := readFile(path)
	if err != nil {
		return nil, err
	}
	if err := savefile.Check(path, also...); err != nil {
		return nil, fmt.Errorf("the policy file is not trusted: %w", err)
	}
	return text, nil
}

// wanted returns the policy of the file, or the built-in one where there is none and none is asked for.
func (fw *Firewall) wanted(config string) (*source, error) {
	s, err := fw.readSource(config)
	if fw.options.ConfigGiven || config != DefaultConfig || !errors.Is(err, fs.ErrNotExist) {
		return s, err
	}
	p, err := fw.builtIn()
	if err != nil {
		return nil, fmt.Errorf("there is no %s, and %w", config, err)
	}
	return &source{path: config, policy: p, builtIn: true}, nil
}

// builtIn returns the policy for a host without a file: what an sshd listens on is open, and where the host forwards, as
// for containers, they reach out.
func (fw *Firewall) builtIn() (*policy.Policy, error) {
	p := policy.Default()
	if fw.kernel.Forwards() {
		p.Forward = policy.ForwardEstablished
	}
	ports, err := fw.kernel.SSHPorts()
	if err != nil {
		return nil, fmt.Errorf("the port of sshd cannot be found: %w", err)
	}
	p.Open, err = sshRules(ports)
	return p, err
}

// sshRules returns rules that open ports of an sshd to everybody.
func sshRules(ports []uint16) (rules []policy.Rule, err error) {
	for _, port := range ports {
		text := fmt.Sprintf("%d/tcp", port)
		if port == 22 {
			text = "ssh"
		}
		r, err := policy.ParseRule(text)
		if err != nil {
			return nil, err
		}
		rules = append(rules, r)
	}
	return rules, nil
}

// builtInAtBoot is builtIn for when sshd may not have begun to listen yet, nor a container engine to forward.
func (fw *Firewall) builtInAtBoot() (*policy.Policy, error) {
	p, err := fw.builtIn()
	if err != nil {
		return nil, err
	}
	p.Forward = policy.ForwardEstablished
	if len(p.Open) > 0 {
		return p, nil
	}
	ports := slices.Compact(slices.Sorted(slices.Values(fw.kernel.ConfiguredSSHPorts())))
	if len(ports) == 0 {
		ports = []uint16{22}
	}
	p.Open, err = sshRules(ports)
	return p, err
}

// isBuiltIn reports whether a policy is what Up makes without a file: it opens ports of an sshd, and nothing else in it
// differs from the defaults.
func (fw *Firewall) isBuiltIn(p *policy.Policy) bool {
	ports, err := fw.kernel.SSHPorts()
	if err != nil {
		ports = nil // then 22, and what it is configured for
	}
	ports = append(append(ports, fw.kernel.ConfiguredSSHPorts()...), 22)
	plain := policy.Default()
	plain.Interfaces, plain.Open = p.Interfaces, p.Open
	if p.Forward == policy.ForwardEstablished { // it forwarded then
		plain.Forward = p.Forward
	}
	return plain.Equal(p) && !slices.ContainsFunc(p.Open, func(r policy.Rule) bool {
		return r.Forward || !slices.ContainsFunc(ports, func(port uint16) bool {
			text := fmt.Sprintf("%d/tcp", port)
			return r.String() == text || port == 22 && r.String() == "ssh"
		})
	})
}

// Wanted is the policy that the next Up puts in force.
type Wanted struct {
	Config  string
	Policy  *policy.Policy
	BuiltIn bool // there is no file
}

// Wanted returns the policy that the next Up puts in force. The file of a filter that runs counts unless one was given.
// The configuration file is named also where an error says what is wrong with it.
func (fw *Firewall) Wanted(ctx context.Context) (Wanted, error) {
	_, config, err := fw.running(ctx)
	if err != nil {
		return Wanted{Config: config}, err
	}
	return fw.wantedBy(config)
}

// WantedByFile is Wanted for a caller that may not, or need not, ask the filter.
func (fw *Firewall) WantedByFile() (Wanted, error) { return fw.wantedBy(fw.options.Config) }

func (fw *Firewall) wantedBy(config string) (Wanted, error) {
	w := Wanted{Config: config}
	s, err := fw.wanted(config)
	if err == nil {
		w.Policy, w.BuiltIn = s.policy, s.builtIn
	}
	return w, err
}

// running returns the interfaces of a filter that runs, of which there may be none, and the policy file that counts.
func (fw *Firewall) running(ctx context.Context) (interfaces []string, config string, err error) {
	f, err := fw.View(ctx)
	if errors.Is(err, loader.ErrNotRunning) || errors.Is(err, loader.ErrOlderSchema) || errors.Is(err, loader.ErrDamaged) {
		return nil, fw.options.Config, nil
	}
	if err != nil {
		return nil, fw.options.Config, err
	}
	defer f.Close()
	interfaces, err = f.Named() // and not the policy, which Up may be there to replace
	return interfaces, fw.configOf(f), err
}

// Interfaces returns those that are to be filtered: the ones named, else the policy's, else those of a filter that runs,
// else that of the default route.
func (fw *Firewall) Interfaces(named, configured, filtered []string) ([]string, error) {
	for _, names := range [][]string{named, configured, filtered} {
		if len(names) > 0 {
			return union(names), nil
		}
	}
	name, err := fw.kernel.DefaultInterface()
	if err != nil {
		return nil, err
	}
	return []string{name}, nil
}

// DefaultInterface returns the interface of the default route, or "" where there is none.
func (fw *Firewall) DefaultInterface() string {
	name, err := fw.kernel.DefaultInterface()
	if err != nil {
		return ""
	}
	return name
}

// union returns the names in all lists, in order.
func union(lists ...[]string) []string {
	names := slices.Concat(lists...)
	slices.Sort(names)
	return slices.Compact(names)
}

// letGo returns the patterns in force that a policy has no more. Where it names no interface, those in force stay.
func letGo(inForce, named []string) (patterns []string) {
	if len(named) == 0 {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(inForce), func(name string) bool { return !policy.IsPattern(name) || slices.Contains(named, name) })
}

// without returns the names that are not among others.
func without(names, others []string) []string {
	return slices.DeleteFunc(slices.Clone(names), func(name string) bool { return slices.Contains(others, name) })
}

// withInterfaces returns the policy as it will be on interfaces that are filtered already, too.
func withInterfaces(p *policy.Policy, filtered []string) *policy.Policy {
	p = p.Clone()
	p.Interfaces = union(p.Interfaces, filtered)
	return p
}
