// SPDX-License-Identifier: Apache-2.0

package bans

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/portcullis-firewall/portcullis/maps"
)

var now = time.UnixMilli(1764340000123)

func ban(address string, period time.Duration, reason string) maps.Ban {
	p, err := ParseAddress(address)
	if err != nil {
		panic(err)
	}
	b := maps.Ban{Prefix: p, Since: now, Reason: reason}
	if period != 0 {
		b.Until = now.Add(period)
	}
	return b
}

func journal(t *testing.T) Journal { return NewJournal(filepath.Join(t.TempDir(), "state", "bans")) }

// must returns a function that fails the test for an error.
func must(t *testing.T) func(error) {
	return func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
}

// all returns what a journal holds, as Load tells it.
func (j Journal) all(at time.Time) (live []maps.Ban, damaged int, err error) {
	damaged, err = j.Load(at, func(b maps.Ban) error {
		live = append(live, b)
		return nil
	})
	return live, damaged, err
}

func loadAll(text []byte) (live []maps.Ban, damaged int, err error) {
	damaged, err = load(bytes.NewReader(text), func(b maps.Ban) error {
		if holds(&b, now) {
			live = append(live, b)
		}
		return nil
	})
	return live, damaged, err
}

func (j Journal) mustHold(t *testing.T, at time.Time, want ...maps.Ban) {
	t.Helper()
	j.mustHoldDamaged(t, at, 0, want...)
}

func (j Journal) mustHoldDamaged(t *testing.T, at time.Time, lines int, want ...maps.Ban) {
	t.Helper()
	live, damaged, err := j.all(at)
	if err != nil || damaged != lines || !sameBans(live, want) {
		t.Fatalf("it holds %v, %d lines damaged, %v\nwant %v, %d", live, damaged, err, want, lines)
	}
}

// endedAt returns a function for Compact that keeps what has not ended at a time.
func endedAt(at time.Time) func(*maps.Ban) bool {
	return func(b *maps.Ban) bool { return holds(b, at) }
}

func sameBans(a, b []maps.Ban) bool {
	return slices.EqualFunc(a, b, func(a, b maps.Ban) bool {
		return a.Prefix == b.Prefix && a.Since.Equal(b.Since) && a.Until.Equal(b.Until) && a.Reason == b.Reason
	})
}

func TestJournal(t *testing.T) {
	j, must := journal(t), must(t)
	j.mustHold(t, now)
	must(j.Clear())
	if _, err := os.Stat(j.Path()); !errors.Is(err, fs.ErrNotExist) {
		t.Error("there is a journal, and never was a ban")
	}
	a, b := ban("203.0.113.7", time.Hour, "sshd"), ban("2001:db8::/32", 0, "a long, long reason – with words")
	c, d := ban("198.51.100.0/24", time.Minute, ""), ban("2001:db8::1", 90*time.Second, "nginx")
	must(j.Add([]maps.Ban{a, b, c}, false))
	must(j.Add([]maps.Ban{d}, false))
	j.mustHold(t, now, a, b, c, d)
	j.mustHold(t, now.Add(time.Minute-time.Millisecond), a, b, c, d)
	j.mustHold(t, now.Add(time.Minute), a, b, d)
	j.mustHold(t, now.Add(100*365*24*time.Hour), b)
	must(j.Remove([]netip.Prefix{a.Prefix, ban("192.0.2.9", 0, "").Prefix}))
	j.mustHold(t, now, b, c, d)
	longer := ban("198.51.100.0/24", 3*time.Hour, "again")
	must(j.Add([]maps.Ban{longer, a}, false))
	j.mustHold(t, now.Add(30*time.Minute), b, longer, a)
	must(j.Compact(endedAt(now.Add(2*time.Hour)), nil))
	j.mustHold(t, now.Add(2*time.Hour), b, longer)
	must(j.Add([]maps.Ban{a}, false))
	j.mustHold(t, now, b, longer, a)
	for path, mode := range map[string]fs.FileMode{j.Path(): 0o600, filepath.Dir(j.Path()): 0o700 | fs.ModeDir} {
		if info, err := os.Stat(path); err != nil || info.Mode() != mode {
			t.Errorf("%s has mode %v, %v", path, info.Mode(), err)
		}
	}
	must(j.Clear())
	j.mustHold(t, now)
}

// A machine without a clock of its own may boot in the past: a ban does not last longer than it was made for.
func TestJournalOfAClockThatIsBehind(t *testing.T) {
	j := journal(t)
	must(t)(j.Add([]maps.Ban{ban("203.0.113.7", time.Hour, "")}, false))
	live, _, err := j.all(time.UnixMilli(1000))
	if err != nil || len(live) != 1 || !live[0].Until.Equal(time.UnixMilli(1000).Add(time.Hour)) {
		t.Errorf("got %v, %v", live, err)
	}
}

// What a crash may leave: the file ends anywhere, or has a hole, or anything at all in it. Whatever lines are whole count, and
// what is appended later.
func TestDamagedJournal(t *testing.T) {
	j, must := journal(t), must(t)
	var all []maps.Ban
	for i := range 20 {
		all = append(all, ban(fmt.Sprintf("203.0.113.%d", i+1), time.Hour, strings.Repeat("r", i)))
	}
	must(j.Add(all, true))
	whole, err := os.ReadFile(j.Path())
	must(err)
	late := ban("2001:db8::9", 0, "late")
	for cut := range len(whole) {
		must(os.WriteFile(j.Path(), whole[:cut], 0o600))
		lines := bytes.Count(whole[:cut+1], []byte("\n")) - 1 // but for the title; a checksum needs no end of its line
		torn := 0
		if whole[max(cut, 1)-1] != '\n' && whole[cut] != '\n' {
			torn = 1
		}
		if live, damaged, err := j.all(now); cut > headerLen && (err != nil || damaged != torn || !sameBans(live, all[:lines])) {
			t.Fatalf("cut at %d: %v, %d lines damaged, %v", cut, live, damaged, err)
		}
		must(j.Add([]maps.Ban{late}, false))
		live, _, err := j.all(now)
		if err != nil || !sameBans(live, append(slices.Clone(all[:max(lines, 0)]), late)) {
			t.Fatalf("cut at %d, and appended to: %v, %v", cut, live, err)
		}
	}
	// A hole, as where a file system had made the file longer before it wrote the data.
	end := bytes.IndexByte(whole[headerLen:], '\n') + headerLen + 1
	hole := slices.Concat(whole[:end], make([]byte, 4096), whole[len(whole)-200:])
	must(os.WriteFile(j.Path(), hole, 0o600))
	live, damaged, err := j.all(now)
	if err != nil || damaged != 1 || len(live) < 3 || live[0].Prefix != all[0].Prefix || live[len(live)-1].Prefix != all[19].Prefix {
		t.Errorf("with a hole: %v, %d lines damaged, %v", live, damaged, err)
	}
	// No single wrong bit makes another ban of one.
	for bit := range 8 * (len(whole) - headerLen) {
		wrong := slices.Clone(whole)
		wrong[headerLen+bit/8] ^= 1 << (bit % 8)
		live, damaged, err := loadAll(wrong)
		if err != nil || damaged == 0 || len(live) < 18 {
			t.Fatalf("bit %d: %d bans, %d lines damaged, %v", bit, len(live), damaged, err)
		}
		for _, b := range live {
			if !slices.ContainsFunc(all, func(a maps.Ban) bool { return sameBans([]maps.Ban{a}, []maps.Ban{b}) }) {
				t.Fatalf("bit %d makes %v", bit, b)
			}
		}
	}
}

func TestJournalThatIsNotOurs(t *testing.T) {
	j, must := journal(t), must(t)
	must(os.MkdirAll(filepath.Dir(j.Path()), 0o700))
	later := "portcullis bans, version 2, 000000000000 bytes\nwhatever\n"
	must(os.WriteFile(j.Path(), []byte(later), 0o600))
	const want = "a later version of portcullis has written it"
	if err := j.Add([]maps.Ban{ban("203.0.113.7", 0, "")}, false); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("added to: %v", err)
	}
	if _, _, err := j.all(now); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("loaded: %v", err)
	}
	if err := j.Compact(endedAt(now), nil); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("compacted: %v", err)
	}
	if text, _ := os.ReadFile(j.Path()); string(text) != later {
		t.Errorf("it holds %q", text)
	}
	must(os.Remove(j.Path()))
	other := filepath.Join(t.TempDir(), "other")
	must(os.WriteFile(other, []byte("precious\n"), 0o600))
	must(os.Symlink(other, j.Path()))
	if j.Add([]maps.Ban{ban("203.0.113.7", 0, "")}, false) == nil {
		t.Error("a link is followed")
	}
	if text, _ := os.ReadFile(other); string(text) != "precious\n" {
		t.Errorf("what the link leads to holds %q", text)
	}
	must(os.Remove(j.Path()))
	must(os.Mkdir(j.Path(), 0o700))
	if j.Add([]maps.Ban{ban("203.0.113.7", 0, "")}, false) == nil {
		t.Error("a directory takes bans")
	}
}

// The journal of a host that bans all day stays as long as what it holds.
func TestJournalIsCompacted(t *testing.T) {
	j, must := journal(t), must(t)
	kept := ban("2001:db8::/32", 0, "kept")
	must(j.Add([]maps.Ban{kept}, false))
	longest := int64(0)
	for i := range 3000 {
		b := ban(fmt.Sprintf("203.0.113.%d", i%256), time.Second, "sshd")
		b.Since, b.Until = time.Now(), time.Now().Add(time.Hour)
		must(j.Add([]maps.Ban{b}, false))
		must(j.Remove([]netip.Prefix{b.Prefix}))
		if j.IsLong() {
			must(j.Compact(endedAt(time.Now()), nil))
		}
		info, err := os.Stat(j.Path())
		must(err)
		longest = max(longest, info.Size())
	}
	if longest > 2*slack {
		t.Errorf("it has grown to %d bytes", longest)
	}
	j.mustHold(t, now, kept)
	if _, err := os.Stat(j.Path() + nextFile); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what it is made anew from is left: %v", err)
	}
}

// Killed at any moment, a writer leaves every ban that it has reported, and none that it has taken back.
func TestKilledJournal(t *testing.T) {
	if path := os.Getenv("BANS_TEST_JOURNAL"); path != "" {
		write(NewJournal(path))
		return
	}
	rounds, reported := 30, 0
	for round := range rounds {
		j := journal(t)
		cmd := exec.Command(os.Args[0], "-test.run=^TestKilledJournal$")
		cmd.Env = append(os.Environ(), "BANS_TEST_JOURNAL="+j.Path())
		out, err := cmd.StdoutPipe()
		must(t)(err)
		must(t)(cmd.Start())
		time.AfterFunc(time.Duration(20+rand.IntN(150))*time.Millisecond, func() { cmd.Process.Kill() })
		held, asked := make(map[string]bool), ""
		for lines := bufio.NewScanner(out); lines.Scan(); {
			switch word, what, _ := strings.Cut(lines.Text(), " "); word {
			case "begin":
				asked = what
			case "banned":
				held[what] = true
				reported++
			case "unbanned":
				delete(held, what)
			}
		}
		cmd.Wait()
		live, damaged, err := j.all(now)
		if err != nil || damaged > 1 {
			t.Fatalf("round %d: %d lines damaged, %v", round, damaged, err)
		}
		for _, b := range live {
			if text := Text(b.Prefix); !held[text] && text != asked {
				t.Fatalf("round %d: %s is banned again", round, text)
			}
			delete(held, Text(b.Prefix))
		}
		delete(held, asked)
		if len(held) > 0 {
			t.Fatalf("round %d: %v are lost", round, held)
		}
	}
	if reported < 10*rounds {
		t.Errorf("there were %d bans only", reported)
	}
}

// write writes until it is killed, and says what it begins and what it has done.
func write(j Journal) {
	// Long reasons, so that it is made anew often.
	for i := 0; ; i++ {
		b := ban(fmt.Sprintf("10.%d.%d.%d", i>>12&255, i>>4&255, i&15), 0, strings.Repeat("x", longestReason))
		fmt.Println("begin", Text(b.Prefix))
		if err := j.Add([]maps.Ban{b}, false); err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println("banned", Text(b.Prefix))
		if i%64 == 63 {
			if err := j.Compact(endedAt(now), nil); err != nil {
				fmt.Println(err)
				return
			}
		}
		if i%3 == 0 {
			fmt.Println("begin", Text(b.Prefix))
			if err := j.Remove([]netip.Prefix{b.Prefix}); err != nil {
				fmt.Println(err)
				return
			}
			fmt.Println("unbanned", Text(b.Prefix))
		}
	}
}

func TestManyBansInTheJournal(t *testing.T) {
	if testing.Short() {
		t.Skip("writes 60 MB")
	}
	all, now := make([]maps.Ban, 1_000_000), time.UnixMilli(time.Now().UnixMilli())
	for i := range all {
		addr := netip.AddrFrom4([4]byte{11, byte(i >> 16), byte(i >> 8), byte(i)})
		all[i] = maps.Ban{Prefix: netip.PrefixFrom(addr, 32), Since: now, Until: now.Add(time.Hour), Reason: "crowdsec: ssh"}
	}
	j := journal(t)
	start := time.Now()
	must(t)(j.Add(all, true))
	written := time.Since(start)
	start = time.Now()
	live, damaged, err := j.all(now)
	if err != nil || damaged != 0 || !sameBans(live, all) {
		t.Errorf("%d bans, %d lines damaged, %v", len(live), damaged, err)
	}
	t.Logf("a million: written in %v, loaded in %v", written, time.Since(start))
}

func FuzzJournal(f *testing.F) {
	j := NewJournal(filepath.Join(f.TempDir(), "bans"))
	if err := j.Add([]maps.Ban{ban("203.0.113.7", time.Hour, "sshd"), ban("2001:db8::/32", 0, "")}, false); err != nil {
		f.Fatal(err)
	}
	if err := j.Remove([]netip.Prefix{ban("203.0.113.7", 0, "").Prefix}); err != nil {
		f.Fatal(err)
	}
	whole, err := os.ReadFile(j.Path())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add(whole[:len(whole)-9])
	f.Add([]byte("portcullis bans, version 1, 99999999999999999999 bytes\n\n\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		live, _, err := loadAll(text)
		if err != nil {
			return // a later version's
		}
		// Whatever it is, it can be written anew, and be appended to.
		j := NewJournal(filepath.Join(t.TempDir(), "bans"))
		must := must(t)
		must(os.WriteFile(j.Path(), text, 0o600))
		late := ban("192.0.2.254", time.Hour, "late")
		live = slices.DeleteFunc(live, func(b maps.Ban) bool { return b.Prefix == late.Prefix })
		must(j.Add([]maps.Ban{late}, false))
		again, _, err := j.all(now)
		must(err)
		again = slices.DeleteFunc(again, func(b maps.Ban) bool { return b.Prefix == late.Prefix })
		if len(again) < len(live) {
			t.Fatalf("%v has become %v", live, again)
		}
		must(j.Compact(endedAt(now), nil))
		compacted, damaged, err := j.all(now)
		must(err)
		if damaged > 0 || len(compacted) != len(again)+1 {
			t.Fatalf("made anew it holds %v, %d lines damaged; want %v", compacted, damaged, again)
		}
	})
}

// Two that write at once, as where /run has no room for the lock that they would take turns by, lose nothing of each other.
func TestWritersOfOneJournalTakeTurns(t *testing.T) {
	j := journal(t)
	const writers, each = 4, 150
	failed := make(chan error, writers)
	for w := range writers {
		go func() {
			for i := range each {
				b := ban(fmt.Sprintf("10.%d.%d.%d", w, i>>8, i&255), 0, "sshd")
				if err := j.Add([]maps.Ban{b}, false); err != nil {
					failed <- err
					return
				}
				if i%20 == 19 {
					if err := j.Compact(func(*maps.Ban) bool { return true }, nil); err != nil {
						failed <- err
						return
					}
				}
			}
			failed <- nil
		}()
	}
	for range writers {
		must(t)(<-failed)
	}
	live, damaged, err := j.all(now)
	if err != nil || damaged > 0 || len(live) != writers*each {
		t.Errorf("it holds %d bans of %d, %d lines damaged, %v", len(live), writers*each, damaged, err)
	}
}

// What Compact is told to keep stays as it was written, whatever the clock says now.
func TestCompactedBansStayAsTheyWere(t *testing.T) {
	j := journal(t)
	a, b := ban("203.0.113.7", time.Hour, "sshd"), ban("203.0.113.8", time.Minute, "")
	must(t)(j.Add([]maps.Ban{a, b}, false))
	must(t)(j.Compact(func(got *maps.Ban) bool { return got.Prefix != b.Prefix }, nil))
	j.mustHold(t, now, a)
	j.mustHold(t, now.Add(time.Hour))
}
