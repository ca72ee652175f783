// SPDX-License-Identifier: Apache-2.0

package maps

import (
	"errors"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/bpf"
	"github.com/portcullis-firewall/portcullis/policy"
)

// Group tells how long a map lives.
type Group int

const (
	// State outlives a change of policy: flows, counters, local addresses.
	State Group = iota
	// Policy is made anew with each policy that is applied.
	Policy
)

// The names of data sections, where the datapath has variables instead of a map.
const (
	stateMap   = ".data.state"
	accountMap = ".data.account"
	portsMap   = ".bss"
	runMap     = ".data.last_run"
)

// kinds lists every map that is kept, by its name in the object and the name of its pin (which may hold no dot).
var kinds = []struct {
	name, pin string
	group     Group
}{
	{bpf.FirewallMapFlows, "flows", State},
	{bpf.FirewallMapFlowTags, "flow_tags", State},
	{bpf.FirewallMapLocal4, "local4", State},
	{bpf.FirewallMapLocal6, "local6", State},
	{".data.own", "known_own", State},
	{".data.others", "known_others", State},
	{bpf.FirewallMapQuestions, "questions", State},
	{bpf.FirewallMapStations, "stations", State},
	{bpf.FirewallMapSearches, "searches", State},
	{bpf.FirewallMapCounters, "counters", State},
	{bpf.FirewallMapEvents, "events", State},
	{bpf.FirewallMapEventBudgets, "event_budgets", State},
	{".data.used", "used", State},
	{".data.syn_sent", "syn_sent", State},
	{runMap, "last_run", State},
	{stateMap, "state", State},
	{accountMap, "account", State},
	{portsMap, "ports", Policy},
	{bpf.FirewallMapSources4, "sources4", Policy},
	{bpf.FirewallMapSources6, "sources6", Policy},
	{bpf.FirewallMapRules, "rules", Policy},
	{bpf.FirewallMapRunning, "running", Policy},
}

// keepSize lists the maps that keep their size as long as there are flows.
var keepSize = []string{bpf.FirewallMapFlows, bpf.FirewallMapFlowTags}

// Set holds the maps of one datapath.
type Set struct {
	byName   [2]map[string]*ebpf.Map // by Group
	stateDir string                  // where maps of group State are pinned that are not open
	lost     Lost

	mu     sync.Mutex        // of the following, and of the maps of group State
	mapped map[string][]byte // see memory
}

func newSet() *Set {
	return &Set{byName: [2]map[string]*ebpf.Map{make(map[string]*ebpf.Map), make(map[string]*ebpf.Map)}}
}

// NewSet creates the maps that spec describes, taking those of group State from old when it is not nil. Maps of old
// whose size no longer fits are made anew; the counters then keep their values.
func NewSet(spec *ebpf.CollectionSpec, old *Set) (_ *Set, err error) {
	s := newSet()
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	for _, k := range kinds {
		mapSpec := spec.Maps[k.name]
		if mapSpec == nil {
			return nil, fmt.Errorf("the object has no map %s", k.name)
		}
		if k.group == State && old != nil {
			have, err := old.Map(k.name)
			if err != nil {
				return nil, err
			}
			if have.MaxEntries() == mapSpec.MaxEntries || slices.Contains(keepSize, k.name) {
				mapSpec.MaxEntries = have.MaxEntries()
				if s.byName[State][k.name], err = have.Clone(); err != nil {
					return nil, err
				}
				continue
			}
		}
		if strings.HasPrefix(k.name, ".") {
			mapSpec.Flags |= unix.BPF_F_MMAPABLE // as the library does it for the sections of global variables
		}
		if s.byName[k.group][k.name], err = ebpf.NewMap(mapSpec); err != nil {
			return nil, fmt.Errorf("create map %s: %w", k.name, err)
		}
		switch {
		case k.name == bpf.FirewallMapCounters && old != nil:
			err = copyCounters(old, s)
		case k.name == stateMap:
			err = s.sow()
		}
		if err != nil {
			return nil, err
		}
	}
	return s, nil
}

// sow gives the flow table's hash a seed that nobody knows.
func (s *Set) sow() error {
	return s.state(func(state *bpf.FirewallState) { state.Seed = rand.Uint64() })
}

// state gives work the datapath's state.
func (s *Set) state(work func(*bpf.FirewallState)) error {
	memory, err := s.memory(stateMap)
	if err != nil {
		return err
	}
	work(&view[bpf.FirewallState](memory)[0])
	return nil
}

// Resize sets in spec the sizes that a policy asks for. Rules get room to grow, so that opening one needs no reload.
func Resize(spec *ebpf.CollectionSpec, p *policy.Policy) {
	capacity := uint32(1024)
	if n := uint32(2 * len(p.Open)); n > capacity {
		capacity = min(uint32(1)<<bits.Len32(n-1), 1<<16)
	}
	spec.Maps[bpf.FirewallMapRules].MaxEntries = capacity
	spec.Maps[bpf.FirewallMapCounters].MaxEntries = uint32(reasonCount) + capacity
	ResizeFlows(spec, p.FlowLimit())
}

// ResizeFlows sets in spec the most flows that the table keeps, of both families.
func ResizeFlows(spec *ebpf.CollectionSpec, limit int) {
	spec.Maps[bpf.FirewallMapFlowTags].MaxEntries = flowSets(limit)
	spec.Maps[bpf.FirewallMapFlows].MaxEntries = flowSets(limit) * uint32(placesPerSet)
	account := &bpf.FirewallAccount{MaxFlows: uint32(limit)}
	memory := unsafe.Slice((*byte)(unsafe.Pointer(account)), unsafe.Sizeof(*account))
	spec.Maps[accountMap].Contents = []ebpf.MapKV{{Key: uint32(0), Value: memory}}
}

// Measure gives the maps in spec the sizes that those of the set have, so that a program can be loaded over them.
func (s *Set) Measure(spec *ebpf.CollectionSpec) error {
	all, err := s.All()
	for name, m := range all {
		spec.Maps[name].MaxEntries = m.MaxEntries()
	}
	return err
}

// All returns the maps by their names in the object, in the form that a program load takes.
func (s *Set) All() (map[string]*ebpf.Map, error) {
	all := make(map[string]*ebpf.Map)
	for _, k := range kinds {
		m, err := s.Map(k.name)
		if err != nil {
			return nil, err
		}
		all[k.name] = m
	}
	return all, nil
}

// OpenAll opens what has not been asked for yet.
func (s *Set) OpenAll() error {
	_, err := s.All()
	return err
}

// Map returns one map by its name in the object.
func (s *Set) Map(name string) (*ebpf.Map, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.find(name)
}

// find is Map under the lock.
func (s *Set) find(name string) (*ebpf.Map, error) {
	for _, k := range kinds {
		if k.name != name {
			continue
		}
		m, err := s.byName[k.group][name], error(nil)
		if m == nil {
			if m, err = s.lost.open(s.stateDir, k.name, k.pin); err == nil {
				s.byName[k.group][name] = m
			}
		}
		return m, err
	}
	return nil, fmt.Errorf("there is no map %s", name)
}

// Pin pins the maps of a group below dir. Pins of the same name are replaced.
func (s *Set) Pin(dir string, group Group) error {
	for _, k := range kinds {
		if k.group != group {
			continue
		}
		// Pin into a name beside and rename: a map is never without its pin.
		path, next := filepath.Join(dir, k.pin), filepath.Join(dir, k.pin+"_next")
		m, err := s.Map(k.name)
		if err != nil {
			return err
		}
		clone, err := m.Clone() // a Map remembers one pin only
		if err != nil {
			return err
		}
		_ = os.Remove(next)
		err = clone.Pin(next)
		clone.Close()
		if err != nil {
			return fmt.Errorf("pin map %s: %w", k.pin, err)
		}
		if err := os.Rename(next, path); err != nil {
			return fmt.Errorf("pin map %s: %w", k.pin, err)
		}
	}
	return nil
}

// OpenSet opens the pinned maps of a datapath, those of group State when they are first asked for.
func OpenSet(stateDir, policyDir string) (*Set, error) { return OpenDamaged(stateDir, policyDir, nil) }

// OpenDamaged is OpenSet for a datapath of which some maps may have lost their pins.
func OpenDamaged(stateDir, policyDir string, lost Lost) (*Set, error) {
	s := OpenState(stateDir, lost)
	for _, k := range kinds {
		if k.group != Policy {
			continue
		}
		m, err := lost.open(policyDir, k.name, k.pin)
		if err != nil {
			s.Close()
			return nil, err
		}
		s.byName[Policy][k.name] = m
	}
	return s, nil
}

func openPinned(dir, pin string) (*ebpf.Map, error) {
	m, err := ebpf.LoadPinnedMap(filepath.Join(dir, pin), nil)
	if err != nil {
		return nil, fmt.Errorf("open pinned map %s: %w", pin, err)
	}
	return m, nil
}

// Close closes the maps; what is pinned or used by a program stays.
func (s *Set) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, group := range s.byName {
		for name, m := range group {
			s.unmap(name)
			errs = append(errs, m.Close())
		}
	}
	return errors.Join(errs...)
}
