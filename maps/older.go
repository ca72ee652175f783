// SPDX-License-Identifier: Apache-2.0

package maps

import (
	"bytes"
	"fmt"
	"path/filepath"
	"strings"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/bpf"
	"github.com/portcullis-firewall/portcullis/policy"
)

// The flow table of schema v3.
type (
	entryV3 struct {
		Key  bpf.FirewallFlowKey
		Flow flowV3
	}
	flowV3 struct {
		Expires, Created uint64 // jiffies
		Ack              uint32
		State            uint8
		Ending           uint8
		Answered         uint8
		_                uint8
	}
)

const killedV3 = 19

// endingsV3 maps the bits of flowV3.Ending to marks.
var endingsV3 = []bpf.FirewallMark{
	bpf.FirewallMarkFIN_OURS, bpf.FirewallMarkFIN_THEIRS, bpf.FirewallMarkRST_OURS, bpf.FirewallMarkSYN_THEIRS,
}

// reasonsV4 lists the reasons of schemas v4 and v5 in the order in which they count them. Rules of v4 count behind them.
var reasonsV4 = strings.Split("pass not ip,pass other host,pass established,pass related,pass icmp,"+
	"pass neighbor discovery,pass dhcp,pass fragment,pass forward,pass input,pass invalid,"+
	"drop closed port,drop source,drop icmp,drop protocol,drop forward,drop invalid,drop bad vlan,drop bad ipv4,"+
	"drop bad ipv6,drop bad extension,drop bad transport,drop tiny fragment,"+
	"seen flows full,seen flows evicted,seen invalid header,seen invalid length,seen invalid flags,"+
	"seen invalid state,seen invalid icmp", ",")

// olderSchema says how to read what an older schema has pinned.
type olderSchema struct {
	flows   func(dir string, each func(*bpf.FirewallSeed) error) error
	rules   func(dir string) (rules []Rule, lost []string, err error)
	reasons []string // nil: its counters are not read
	rule0   uint32   // where its rules count
}

// olderSchemas lists the schemas that can be read. When the schema changes, the one before is added here, with the names
// of its reasons.
var olderSchemas = map[string]olderSchema{
	"v3": {flows: flowsOf[entryV3]},
	"v4": {flows: flowsOf[entryV4], rules: rulesOfV4, reasons: reasonsV4, rule0: uint32(len(reasonsV4))},
	"v5": {flows: flowsOf[entryV4], rules: rulesOfV5, reasons: reasonsV4, rule0: rule0V5},
}

// Older gives access to what a filter of an older schema has pinned.
type Older struct{ schema, stateDir, policyDir string }

// OpenOlder returns access to what an older schema has pinned in two directories, or nil if that schema cannot be read.
func OpenOlder(schema, stateDir, policyDir string) *Older {
	if _, ok := olderSchemas[schema]; !ok {
		return nil
	}
	return &Older{schema, stateDir, policyDir}
}

// Flows calls each for every flow, expired ones too, in the form in which flows are entered, until it returns an error.
func (o *Older) Flows(each func(*bpf.FirewallSeed) error) error {
	return olderSchemas[o.schema].flows(o.stateDir, each)
}

// Rules returns the rules in force with their numbers, and the text of those that cannot be read any more. It returns
// none if the schema is one whose rules are not read.
func (o *Older) Rules() (rules []Rule, lost []string, err error) {
	if read := olderSchemas[o.schema].rules; read != nil {
		return read(o.policyDir)
	}
	return nil, nil, nil
}

// HasCounters reports whether there are counters that can be inherited.
func (o *Older) HasCounters() bool { return olderSchemas[o.schema].reasons != nil }

// ledger returns the packets by reason, without their bytes, which older schemas did not count. It leaves out reasons that
// this version does not have.
func (o *Older) ledger() (*Ledger, error) {
	schema := olderSchemas[o.schema]
	m, err := openPinned(o.stateDir, "counters")
	if err != nil {
		return nil, err
	}
	defer m.Close()
	counted, err := readCounters(m)
	if err != nil {
		return nil, err
	}
	byName := make(map[string]Reason)
	for _, r := range Reasons() {
		byName[r.Verdict()+" "+r.String()] = r
	}
	out := &Ledger{}
	for i, sum := range counted {
		if number := uint32(i); number >= schema.rule0 {
			out.rules = append(out.rules, Tally{Packets: sum})
			out.total[passRule].Packets += sum
		} else if i < len(schema.reasons) {
			if r, ok := byName[schema.reasons[i]]; ok {
				out.total[r].Packets = sum
			}
		}
	}
	return out, nil
}

// Inherit goes on from the counters of an older version, by whose numbers the rules have to go. See InheritRest.
func (s *State) Inherit(o *Older) error {
	return s.inherit(inheritance{read: o.ledger, pages: true, rules: true})
}

// ruleV4 is a rule as schema v4 has it: the text alone, with the names of services.
type ruleV4 struct {
	Runtime uint8
	Text    [255]byte
}

func rulesOfV4(dir string) (rules []Rule, lost []string, err error) {
	wire, err := olderMap[ruleV4](dir, "rules")
	if err != nil {
		return nil, nil, err
	}
	defer wire.release()
	for id := range wire.values {
		text, _, _ := bytes.Cut(wire.values[id].Text[:], []byte{0})
		if len(text) == 0 {
			continue
		}
		r, err := policy.ParseRule(string(text))
		if err != nil {
			lost = append(lost, string(text))
			continue
		}
		rules = append(rules, Rule{policy.NumberedRule{ID: uint16(id), Rule: r}, wire.values[id].Runtime != 0})
	}
	return rules, lost, nil
}

const rule0V5 = 64

// rulesOfV5 reads records of rules, see record.go.
func rulesOfV5(dir string) (rules []Rule, lost []string, err error) {
	places, err := olderMap[uint64](dir, "rules")
	if err != nil {
		return nil, nil, err
	}
	defer places.release()
	records, err := olderMap[uint64](dir, "rule_records")
	if err != nil {
		return nil, nil, err
	}
	defer records.release()
	for id := range places.values {
		record, ok := bytesAt(records.memory, loadPlace(&places.values[id]))
		if !ok {
			continue
		}
		rule, err := decodeRecord(uint16(id), record, recordHeadV5)
		if err != nil {
			lost = append(lost, fmt.Sprintf("rule %d", id))
			continue
		}
		rules = append(rules, rule)
	}
	return rules, lost, nil
}

// entryV4 is a place of the flow table of schemas v4 and v5, which is like today's.
type entryV4 struct{ bpf.FirewallEntry }

func (e *entryV4) seed() *bpf.FirewallSeed { return &bpf.FirewallSeed{Entry: e.FirewallEntry} }

// seeder is a pointer to an entry of an older flow table.
type seeder[T any] interface {
	*T
	seed() *bpf.FirewallSeed
}

// flowsOf is Older.Flows for a table whose tags are those of today, and whose entries are of a type of their own.
func flowsOf[T any, P seeder[T]](dir string, each func(*bpf.FirewallSeed) error) error {
	tags, err := olderMap[bpf.FirewallTags](dir, "flow_tags")
	if err != nil {
		return err
	}
	defer tags.release()
	entries, err := olderMap[T](dir, "flows")
	if err != nil {
		return err
	}
	defer entries.release()
	if len(entries.values) < len(tags.values)*placesPerSet {
		return fmt.Errorf("the older flow table has %d places in %d sets", len(entries.values), len(tags.values))
	}
	walk(tags.values, entries.values, func(entry *T) bool {
		err = each(P(entry).seed())
		return err == nil
	})
	return err
}

func (e *entryV3) seed() *bpf.FirewallSeed {
	flow := bpf.FirewallFlow{Expires: e.Flow.Expires, Created: Created(e.Flow.Created), Ack: e.Flow.Ack, State: e.Flow.State}
	for bit, mark := range endingsV3 {
		if e.Flow.Ending>>bit&1 != 0 {
			flow.Marks |= uint16(mark)
		}
	}
	if e.Flow.State == killedV3 {
		flow.State = uint8(FlowKilled)
	}
	if e.Flow.Answered != 0 {
		flow.Marks |= uint16(bpf.FirewallMarkANSWERED)
		switch bpf.FirewallFlowState(e.Flow.State) {
		case bpf.FirewallFlowStateFLOW_TCP_ESTABLISHED, bpf.FirewallFlowStateFLOW_TCP_FIN_WAIT,
			bpf.FirewallFlowStateFLOW_TCP_CLOSE_WAIT, bpf.FirewallFlowStateFLOW_TCP_LAST_ACK,
			bpf.FirewallFlowStateFLOW_TCP_TIME_WAIT, bpf.FirewallFlowStateFLOW_TCP_CLOSE,
			bpf.FirewallFlowStateFLOW_UDP_STREAM, bpf.FirewallFlowStateFLOW_GRE_STREAM,
			bpf.FirewallFlowStateFLOW_SCTP_ESTABLISHED:
			flow.Marks |= uint16(bpf.FirewallMarkASSURED)
		}
	}
	return &bpf.FirewallSeed{Entry: bpf.FirewallEntry{Key: e.Key, Flow: flow}}
}

// older is the memory of an array that another version has pinned.
type older[T any] struct {
	values []T
	memory []byte
}

func (o *older[T]) release() { _ = unix.Munmap(o.memory) } // fails for no memory that was mapped

func olderMap[T any](dir, name string) (*older[T], error) {
	m, err := ebpf.LoadPinnedMap(filepath.Join(dir, name), nil)
	if err != nil {
		return nil, fmt.Errorf("open the older map %s: %w", name, err)
	}
	defer m.Close()
	if size := uint32(unsafe.Sizeof(*new(T))); m.ValueSize() != size || m.Type() != ebpf.Array {
		return nil, fmt.Errorf("the older map %s is a %s of %d bytes each, not an array of %d", name, m.Type(), m.ValueSize(), size)
	}
	memory, err := unix.Mmap(m.FD(), 0, int(m.ValueSize()*m.MaxEntries()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map the memory of the older map %s: %w", name, err)
	}
	return &older[T]{view[T](memory), memory}, nil
}
