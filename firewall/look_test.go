// SPDX-License-Identifier: Apache-2.0

package firewall

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"
)

// What a list file holds is seen at each look, whatever is done to it, and one that stays as it is is not read again.
func TestLooksAtLists(t *testing.T) {
	dir := t.TempDir()
	list, other, config := filepath.Join(dir, "list.txt"), filepath.Join(dir, "other.txt"), filepath.Join(dir, "portcullis.yaml")
	write := func(path string, text []byte) {
		t.Helper()
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	large := bytes.Repeat([]byte("192.0.2.1\n"), 1<<19)
	write(list, large)
	write(config, []byte("{}\n"))
	fl := New(Options{Config: config}).Follow(FollowRequest{})
	fl.lists = []string{list}
	before := fl.look()
	changes := func(what string, change func() error) {
		t.Helper()
		if err := change(); err != nil {
			t.Fatal(err)
		}
		now := fl.look()
		if now == before {
			t.Errorf("%s: not seen", what)
		}
		if again := fl.look(); again != now {
			t.Errorf("%s: seen twice", what)
		}
		before = now
	}
	number := byte('1')
	rewrite := func() error {
		number++
		return os.WriteFile(list, bytes.Replace(large, []byte("192.0.2.1"), []byte("192.0.2."+string(number)), 1), 0o600)
	}
	for range 5 { // within one tick of the clock by which a file has its times
		changes("written again at once", rewrite)
		if len(fl.looked) > 0 { // newer kernels tell such changes apart by the time, and older ones do not
			t.Fatal("a file that was just written is taken for one that stays as it is")
		}
	}

	time.Sleep(settled + 100*time.Millisecond)
	fl.look()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	was := m.TotalAlloc
	if now := fl.look(); now != before {
		t.Error("what stays as it is has changed")
	}
	if runtime.ReadMemStats(&m); m.TotalAlloc-was > uint64(len(large)/2) {
		t.Errorf("a file that stays as it is takes %d bytes: it is read again", m.TotalAlloc-was)
	}
	info, err := os.Stat(list)
	if err != nil {
		t.Fatal(err)
	}
	changes("written again under the time that it had", func() error {
		return errors.Join(rewrite(), os.Chtimes(list, info.ModTime(), info.ModTime()))
	})
	write(other, large)
	changes("replaced by another", func() error { return os.Rename(other, list) })
	changes("that others can write to", func() error { return os.Chmod(list, 0o666) })
	changes("that is gone", func() error { return os.Remove(list) })
	changes("that is back", func() error { return os.WriteFile(list, large, 0o600) })
}

// BenchmarkLook measures what the agent does every minute to find out whether a list file has changed.
func BenchmarkLook(b *testing.B) {
	for _, networks := range []int{100_000, 1_000_000} {
		b.Run(fmt.Sprint(networks, " networks"), func(b *testing.B) {
			dir := b.TempDir()
			var text bytes.Buffer
			for i := range networks {
				fmt.Fprintf(&text, "10.%d.%d.%d\n", i>>16, i>>8&255, i&255)
			}
			list, config := filepath.Join(dir, "list.txt"), filepath.Join(dir, "portcullis.yaml")
			for path, data := range map[string][]byte{list: text.Bytes(), config: []byte("{}\n")} {
				if err := os.WriteFile(path, data, 0o600); err != nil {
					b.Fatal(err)
				}
			}
			fl := New(Options{Config: config}).Follow(FollowRequest{})
			fl.lists = []string{list}
			if !testing.Short() {
				time.Sleep(settled + 100*time.Millisecond)
			}
			for b.Loop() {
				fl.look()
			}
		})
	}
}
