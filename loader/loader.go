// SPDX-License-Identifier: Apache-2.0

// Package loader puts the datapath on interfaces and takes it off again. A running filter is found by its pins, so each
// process can go on where an earlier one ended.
package loader

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/portcullis-firewall/portcullis/loader/hook"
	"github.com/portcullis-firewall/portcullis/loader/pin"
	"github.com/portcullis-firewall/portcullis/maps"
	"github.com/portcullis-firewall/portcullis/policy"
)

// Schema is the version of the pinned layout: see [pin.Schema].
const Schema = pin.Schema

// LinearMTU is the largest MTU with which a frame still fits one page for every driver.
const LinearMTU = hook.LinearMTU

// DefaultPinPath is where links and maps are pinned, unless PinPathVariable names another place.
const (
	DefaultPinPath  = "/sys/fs/bpf/portcullis"
	PinPathVariable = "PORTCULLIS_PIN_PATH"
)

// Sentinel errors; the errors returned wrap them and say more.
var (
	// ErrNotRunning means that nothing is attached under this pin path.
	ErrNotRunning = pin.ErrNotRunning
	// ErrOlderSchema means that an older version has pinned the filter. Up takes it over.
	ErrOlderSchema = pin.ErrOlderSchema
	// ErrNewerSchema means that a newer version has pinned the filter.
	ErrNewerSchema = pin.ErrNewerSchema
	// ErrNotFiltered means that the filter runs, but not on this interface.
	ErrNotFiltered = errors.New("this interface is not filtered")
	// ErrOtherNamespace means that the filter under this pin path belongs to another network namespace.
	ErrOtherNamespace = errors.New("the filter belongs to another network namespace")
	// ErrForeignProgram means that another XDP program holds the interface.
	ErrForeignProgram = hook.ErrForeignProgram
	// ErrNoRoom means that a rule has no room in the running maps. Up makes room.
	ErrNoRoom = maps.ErrNoRoom
)

// Mode says where ingress is filtered.
type Mode string

// The modes. Auto takes native XDP, or TC when the driver refuses it.
const (
	ModeAuto    Mode = "auto"
	ModeNative  Mode = "native"
	ModeGeneric Mode = "generic"
	ModeTC      Mode = "tc"
)

// ParseMode returns the mode of a name.
func ParseMode(text string) (Mode, error) {
	switch m := Mode(text); m {
	case ModeAuto, ModeNative, ModeGeneric, ModeTC:
		return m, nil
	}
	return "", fmt.Errorf("unknown mode %q: write auto, native, generic or tc", text)
}

// CleanPinPath returns the canonical spelling of a pin path, or says what is wrong with it.
func CleanPinPath(path string) (string, error) {
	p, err := pin.At(path)
	return p.Base, err
}

// Hook is a program at one hook of an interface.
type Hook = hook.Program

// Hooks returns what is attached to an interface, each direction in the order in which it runs.
func Hooks(pinPath, iface string) ([]Hook, error) {
	return hook.List(pin.Dir{Base: pinPath}.Link(iface), iface)
}

// PinDirs returns the directories that change when a command begins or ends a filter, replaces its policy, or takes an
// interface on or off.
func PinDirs(pinPath string) []string { return pin.Dir{Base: pinPath}.Watched() }

// HiddenMounts reports whether this process has mounts that one of its ancestors has not, as under ip netns exec: a bpf
// filesystem that it mounted would vanish with it.
func HiddenMounts() bool { return pin.HiddenMounts() }

// Options is what Up puts in force, and how.
type Options struct {
	PinPath    string
	Interfaces []string       // names and patterns; what already is attached stays attached
	Mode       Mode           // ModeAuto leaves an attached interface in its mode
	Policy     *policy.Policy // nil: the one in force, as it is
	Runtime    []policy.Rule  // those of the policy's rules that are not in the file
	Config     string         // the file that the policy comes from; later commands save to it

	LetGo []string // patterns that are to bring no more interfaces; those that they have brought are let go of

	Wait        bool // an interface that is not there is no error: Attach filters it when it appears
	Running     bool // change a filter that runs, and begin none
	Attended    bool // "portcullis run" is running, and filters what appears
	Filtered    bool // leave out those of Interfaces that are not filtered
	Look        bool // find out whether drivers run the programs that are to stay where they are
	KeepRuntime bool // rules of the running filter that are not in the file stay

	// NoTCX makes Up use clsact where the kernel has TCX, as it must before Linux 6.6.
	NoTCX bool

	Former []maps.Rule // rules of an earlier policy: what is among them goes on counting under its number

	Blocking *maps.Blocking // block lists and trusted sources; nil: those in force, if there are any
	// Bans puts those of an earlier filter in force, before anything is attached. What runs has its own; nil: none.
	Bans func(put func([]maps.Ban) error) error
}

// Interface is one attached interface.
type Interface struct {
	Name    string `json:"name"`
	Mode    Mode   `json:"mode"`              // native, generic or tc; auto before it was ever there
	Egress  string `json:"egress"`            // tcx or clsact; empty before
	Present bool   `json:"present"`           // false when the interface is gone
	Pattern string `json:"pattern,omitempty"` // that has brought it, where it was not named
}

// UpReport is what Up did.
type UpReport struct {
	Interfaces []Interface `json:"interfaces"`
	Updated    bool        `json:"updated"`  // it was running, and got the policy in place
	Seeded     int         `json:"seeded"`   // live connections that were entered as flows
	Bans       int         `json:"bans"`     // of an earlier filter that are in force again
	Warnings   []string    `json:"warnings"` // native refused, forwarding and the like, one sentence each
}

// Instance is a filter in this network namespace.
type Instance struct {
	PinPath    string   `json:"pin_path"`
	Interfaces []string `json:"interfaces"`
}

// DownReport is what Down took off.
type DownReport struct {
	Interfaces []string `json:"interfaces"`
	Remaining  []string `json:"remaining"` // interfaces that stay filtered
	Absent     []string `json:"absent"`    // those of either that do not exist
	Patterns   []string `json:"patterns"`  // those of either that stand for interfaces

	Others []Instance `json:"others"` // what filters this host under other pin paths

	Behind map[string]string `json:"-"` // of Interfaces, what still filters the packets of each: its bridge, bond or parent
}

// RuleStatus is a rule in force and the packets that it let in.
type RuleStatus struct {
	Rule    string `json:"rule"`
	Packets uint64 `json:"packets"`
	Runtime bool   `json:"runtime"` // not in the file
	Bytes   uint64 `json:"bytes"`   // of their frames

	Meaning policy.Rule `json:"-"`
	ID      uint16      `json:"-"` // under which it counts, as long as it is in force
}

// CounterStatus is a reason and the packets that it decided.
type CounterStatus struct {
	Verdict string `json:"verdict"` // pass, drop, or seen for what is no verdict
	Reason  string `json:"reason"`
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"` // of their frames
}

// FlowsStatus is how full the flow table is. Only live flows count: each is either answered or pending.
type FlowsStatus struct {
	Assured  int    `json:"assured"` // of the answered: those that keep their place: their connection is not over
	Answered int    `json:"answered"`
	Pending  int    `json:"pending"`
	Max      uint32 `json:"max"`     // the most that the table keeps
	Full     uint64 `json:"full"`    // packets that would have begun a flow and found no room
	Evicted  uint64 `json:"evicted"` // flows that gave their place to new ones
}

// Status is what a running filter is and has done.
type Status struct {
	PinPath    string          `json:"pin_path"`
	Interfaces []Interface     `json:"interfaces"`
	Patterns   []string        `json:"patterns"` // of interfaces that are filtered when they appear
	Policy     *policy.Policy  `json:"-"`        // with the rules in force
	Saved      *policy.Policy  `json:"-"`        // without those that are not in the file
	Config     string          `json:"config"`
	Rules      []RuleStatus    `json:"rules"`
	Closed     maps.Tally      `json:"closed_rules"` // let in by rules that were in force
	Counters   []CounterStatus `json:"counters"`     // every reason; packets let in by a rule count there
	Ledger     []Traffic       `json:"ledger"`
	Flows      FlowsStatus     `json:"flows"`
	Warnings   []string        `json:"warnings"`

	BlockLists []maps.BlockListInForce `json:"-"` // in the order of the policy
}

// Flow is one live flow, as users see it.
type Flow struct {
	Protocol string         `json:"protocol"` // tcp, udp, icmp ... or a number
	Local    netip.AddrPort `json:"local"`
	Remote   netip.AddrPort `json:"remote"`
	State    string         `json:"state"`
	Answered bool           `json:"answered"`
	Assured  bool           `json:"assured"`
	Age      time.Duration  `json:"age"`     // since its first packet, or since it was seeded
	Expires  time.Duration  `json:"expires"` // left when idle
}

// OpenReport is what OpenRules did with each rule.
type OpenReport struct {
	Opened  []policy.Rule
	Already []policy.Rule
}

// CloseReport is what CloseRules did.
type CloseReport struct {
	Closed  []policy.Rule // as they were written
	NotOpen []policy.Rule
	Kept    int // live connections that go on
	Killed  int // connections that were cut
}
