// SPDX-License-Identifier: Apache-2.0

package host

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/bpf"
	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/maps"
	"github.com/portcullis-firewall/portcullis/policy"
	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
)

// placesV3 is the number of places in a set of schema v3's flow table.
const placesV3 = 48

// pinV3 pins flows as schema v3 kept them: a set each, in another place of it each.
func pinV3(t *testing.T, dir string, flows []*bpf.FirewallEntry) {
	t.Helper()
	array := func(name string, size, entries uint32) *ebpf.Map {
		m, err := ebpf.NewMap(&ebpf.MapSpec{Name: name, Type: ebpf.Array, KeySize: 4, ValueSize: size, MaxEntries: entries, Flags: unix.BPF_F_MMAPABLE})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { m.Close() })
		os.Remove(filepath.Join(dir, name))
		if err := m.Pin(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
		return m
	}
	sets := uint32(len(flows) + 1)
	tags, entries := array("flow_tags", 64, sets), array("flows", 64, sets*placesV3)
	for i, flow := range flows {
		var b bytes.Buffer
		binary.Write(&b, binary.NativeEndian, flow.Key)
		answered := uint8(0)
		if flow.Flow.Marks&uint16(bpf.FirewallMarkANSWERED) != 0 {
			answered = 1
		}
		binary.Write(&b, binary.NativeEndian, []uint64{flow.Flow.Expires, flow.Flow.Expires})
		binary.Write(&b, binary.NativeEndian, flow.Flow.Ack)
		b.Write([]byte{flow.Flow.State, 0, answered, 0})
		var words [8]uint64
		words[i%8] = 7 << (10 * (i % 6)) // any tag
		if err := tags.Put(uint32(i), words); err != nil {
			t.Fatal(err)
		}
		if err := entries.Put(uint32(i*placesV3+i%8*6+i%6), b.Bytes()); err != nil {
			t.Fatal(err)
		}
	}
}

// clock reads the datapath's clock (jiffies).
func clock(t *testing.T, l *lab.Lab) (jiffies uint64) {
	t.Helper()
	program, err := ebpf.LoadPinnedProgram(filepath.Join(l.PinPath, loader.Schema, "policy", "clock"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	if _, err := program.Run(&ebpf.RunOptions{Context: &jiffies, ContextOut: &jiffies}); err != nil {
		t.Fatal(err)
	}
	return jiffies
}

// flowTable returns all flows, dead and cut ones too.
func flowTable(t *testing.T, l *lab.Lab) (flows []maps.Flow) {
	t.Helper()
	set, err := maps.OpenSet(filepath.Join(l.PinPath, loader.Schema, "maps"), filepath.Join(l.PinPath, loader.Schema, "policy"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer set.Close()
	if err := set.Flows(func(f *maps.Flow) bool {
		flows = append(flows, *f)
		return true
	}); err != nil {
		t.Fatal(err)
	}
	return flows
}

// An upgrade keeps the flows of the version before: those too that no socket tells of.
func TestAnUpgradeKeepsFlows(t *testing.T) {
	l := lab.New(t)
	up(t, l, loader.ModeNative, policy.Default())
	now := clock(t, l)
	key := func(protocol uint8, port uint16) bpf.FirewallFlowKey {
		word := func(b [4]byte) uint32 { return binary.NativeEndian.Uint32(b[:]) }
		return bpf.FirewallFlowKey{Protocol: protocol, Family: 4, LocalPort: port, RemotePort: 443,
			Local: [4]uint32{word(lab.ServerV4.As4())}, Remote: [4]uint32{word(lab.ClientV4.As4())}}
	}
	answered := uint16(bpf.FirewallMarkANSWERED)
	const ended, killedV3 = 41000, 19
	flows := []*bpf.FirewallEntry{
		{Key: key(unix.IPPROTO_UDP, 40000), Flow: bpf.FirewallFlow{Expires: now + 20000, State: uint8(bpf.FirewallFlowStateFLOW_UDP)}},
		{Key: key(unix.IPPROTO_UDP, 40001), Flow: bpf.FirewallFlow{Expires: now + 20000, State: uint8(bpf.FirewallFlowStateFLOW_UDP_STREAM), Marks: answered}},
		{Key: key(unix.IPPROTO_TCP, 40002), Flow: bpf.FirewallFlow{Expires: now + 2000000, Ack: 5, State: uint8(bpf.FirewallFlowStateFLOW_TCP_ESTABLISHED), Marks: answered}},
		{Key: key(unix.IPPROTO_TCP, 40003), Flow: bpf.FirewallFlow{Expires: now + 2000000, State: killedV3, Marks: answered}},
		{Key: key(unix.IPPROTO_UDP, ended), Flow: bpf.FirewallFlow{Expires: now - 1, State: uint8(bpf.FirewallFlowStateFLOW_UDP)}},
	}
	become(t, l, "v3")
	pinV3(t, filepath.Join(l.PinPath, "v3", "maps"), flows)
	up(t, l, loader.ModeAuto, policy.Default())

	got := make(map[uint16]maps.Flow)
	for _, f := range flowTable(t, l) {
		got[f.Local.Port()] = f
	}
	for _, want := range []struct {
		port    uint16
		state   string
		assured bool
	}{{40000, "udp", false}, {40001, "udp-stream", true}, {40002, "tcp-established", true}, {40003, "killed", true}} {
		f, ok := got[want.port]
		if !ok || f.State.String() != want.state || f.State != maps.FlowKilled && f.Assured != want.assured || f.Expires < now {
			t.Errorf("port %d: the flow is %+v, there: %t; want %s, assured: %t", want.port, f, ok, want.state, want.assured)
		}
	}
	if f, ok := got[ended]; ok && f.Expires > now {
		t.Errorf("a dead flow lives again: %+v", f)
	}
}

// A table that cannot be read keeps nobody from an upgrade.
func TestAnUpgradeFromATableThatCannotBeRead(t *testing.T) {
	l := lab.New(t)
	up(t, l, loader.ModeNative, policy.Default())
	become(t, l, "v3") // of this version's table, which is another
	report := upWith(t, l, loader.Options{Interfaces: []string{"eth0"}, Policy: policy.Default()})
	if !strings.Contains(strings.Join(report.Warnings, "\n"), "cannot be read") {
		t.Errorf("the warnings are %q", report.Warnings)
	}
}
