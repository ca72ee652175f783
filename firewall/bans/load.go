// SPDX-License-Identifier: Apache-2.0

package bans

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/maps"
)

// Load calls each for every ban that has not ended at a time, in the order in which they were made, and returns how many
// lines are damaged. A journal that is not there has none.
func (j Journal) Load(now time.Time, each func(maps.Ban) error) (damaged int, err error) {
	return j.each(func(b maps.Ban) error {
		if !holds(&b, now) {
			return nil
		}
		return each(b)
	})
}

// each is Load for all bans that were not taken back, as they were written.
func (j Journal) each(each func(maps.Ban) error) (damaged int, err error) {
	f, err := os.OpenFile(j.path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer f.Close()
	damaged, err = load(f, each)
	if err != nil && !errors.As(err, new(*fs.PathError)) {
		err = fmt.Errorf("%s: %w", j.path, err)
	}
	return damaged, err
}

// LoadEachReason returns the bans that have not ended at a time by their sources, of which each may have one for every reason.
func (j Journal) LoadEachReason(now time.Time) (map[netip.Prefix][]maps.Ban, error) {
	out := make(map[netip.Prefix][]maps.Ban)
	f, err := os.OpenFile(j.path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return out, nil
	}
	if err != nil {
		return out, err
	}
	defer f.Close()
	l := &journalReader{reasons: make(map[string]string)}
	_, err = l.scan(f, func(_ int32, b maps.Ban, added bool) error {
		if !added {
			delete(out, b.Prefix)
			return nil
		}
		list := slices.DeleteFunc(out[b.Prefix], func(have maps.Ban) bool { return have.Reason == b.Reason })
		if holds(&b, now) {
			list = append(list, b)
		}
		out[b.Prefix] = list
		return nil
	})
	return out, err
}

// Lines returns how many lines the journal has, whatever they say.
func (j Journal) Lines() (lines int, err error) {
	f, err := os.OpenFile(j.path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer f.Close()
	buffer := make([]byte, 256<<10)
	for {
		n, err := f.Read(buffer)
		lines += bytes.Count(buffer[:n], []byte("\n"))
		if errors.Is(err, io.EOF) {
			return lines, nil
		}
		if err != nil {
			return lines, err
		}
	}
}

// load reads a journal twice: the first time to see which line about an address is the last one, as there may be more bans
// than there is memory for.
func load(r io.ReadSeeker, each func(maps.Ban) error) (damaged int, err error) {
	l := &journalReader{single: make(map[uint32]int32), other: make(map[netip.Prefix]int32), reasons: make(map[string]string)}
	damaged, err = l.scan(r, func(n int32, b maps.Ban, added bool) error {
		if added {
			l.setLast(b.Prefix, n)
		} else {
			l.setLast(b.Prefix, 0)
		}
		return nil
	})
	if err == nil {
		_, err = r.Seek(0, io.SeekStart)
	}
	if err != nil {
		return damaged, err
	}
	_, err = l.scan(r, func(n int32, b maps.Ban, added bool) error {
		if !added || l.last(b.Prefix) != n {
			return nil
		}
		return each(b)
	})
	return damaged, err
}

// holds reports whether a ban has not ended. Where the clock is behind the one by which it was made, as before a machine
// without a clock of its own has asked for the time, it lasts no longer than it would have then.
func holds(b *maps.Ban, now time.Time) bool {
	if b.Until.IsZero() {
		return true
	}
	if now.Before(b.Since) {
		b.Until = now.Add(b.Until.Sub(b.Since))
	}
	return now.Before(b.Until)
}

// journalReader reads the lines of a journal.
type journalReader struct {
	single  map[uint32]int32       // the numbers of the last lines about addresses of IPv4
	other   map[netip.Prefix]int32 // and about all others
	reasons map[string]string      // each once
}

func (l *journalReader) last(p netip.Prefix) int32 {
	if is4(p) {
		return l.single[word(p.Addr())]
	}
	return l.other[p]
}

// setLast sets that line, 0 for one that takes the ban back.
func (l *journalReader) setLast(p netip.Prefix, n int32) {
	single := is4(p)
	switch {
	case single && n == 0:
		delete(l.single, word(p.Addr()))
	case single:
		l.single[word(p.Addr())] = n
	case n == 0:
		delete(l.other, p)
	default:
		l.other[p] = n
	}
}

// scan calls each for every whole line but the first, with its number and the ban that it adds or takes back, and returns
// how many others there are.
func (l *journalReader) scan(r io.Reader, each func(n int32, b maps.Ban, added bool) error) (damaged int, err error) {
	lines := bufio.NewReaderSize(r, 256<<10)
	for n := int32(1); ; n++ {
		line, err := lines.ReadSlice('\n')
		long := false // as no line is that was written
		for errors.Is(err, bufio.ErrBufferFull) {
			_, err = lines.ReadSlice('\n')
			long = true
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return damaged, err
		}
		switch {
		case long:
			damaged++
		case err != nil && len(line) == 0:
		case n == 1 && bytes.HasPrefix(line, []byte(journalTitle)):
			if _, err := parseHeader(line); err != nil {
				return damaged, err
			}
		default:
			if b, added, ok := l.record(line); !ok {
				damaged++
			} else if err := each(n, b, added); err != nil {
				return damaged, err
			}
		}
		if err != nil {
			return damaged, nil
		}
	}
}

// record reads a line, and reports whether it is whole.
func (l *journalReader) record(line []byte) (b maps.Ban, added, ok bool) {
	line = bytes.TrimSuffix(line, []byte("\n"))
	if len(line) < sumLen+len(" + ::") {
		return b, false, false
	}
	var sum [sumLen]byte
	putSum(sum[:], crc32.Checksum(line[sumLen+1:], checksums()))
	if !bytes.Equal(line[:sumLen], sum[:]) || line[sumLen] != ' ' || line[sumLen+2] != ' ' {
		return b, false, false
	}
	mark := line[sumLen+1]
	address, rest, timed := bytes.Cut(line[sumLen+3:], []byte(" "))
	if b.Prefix, ok = parseRecorded(address); !ok || timed != (mark == addedMark || mark == forcedMark) {
		return b, false, false
	}
	if mark == endedMark {
		return b, false, true
	}
	b.Forced = mark == forcedMark
	ok = l.parseBan(&b, rest)
	return b, true, ok
}

// parseBan reads what stands behind the address of a ban.
func (l *journalReader) parseBan(b *maps.Ban, rest []byte) (ok bool) {
	since, rest, _ := bytes.Cut(rest, []byte(" "))
	until, reason, _ := bytes.Cut(rest, []byte(" "))
	if b.Since, ok = parseMilli(since); !ok {
		return false
	}
	if string(until) != forEver {
		if b.Until, ok = parseMilli(until); !ok {
			return false
		}
	}
	if b.Reason, ok = l.reasons[string(reason)]; !ok {
		b.Reason = string(reason)
		if CheckReason(b.Reason) != nil {
			return false
		}
		l.reasons[b.Reason] = b.Reason
	}
	return true
}

func parseRecorded(text []byte) (netip.Prefix, bool) {
	if addr, plain := parse4(text); plain {
		return netip.PrefixFrom(addr, 32), true
	}
	if bytes.IndexByte(text, '/') >= 0 {
		p, err := netip.ParsePrefix(string(text))
		return p, err == nil && p == p.Masked() && !p.Addr().Is4In6()
	}
	addr, err := netip.ParseAddr(string(text))
	if err != nil || addr.Zone() != "" || addr.Is4In6() {
		return netip.Prefix{}, false
	}
	return netip.PrefixFrom(addr, addr.BitLen()), true
}

// parseMilli reads a time in milliseconds since 1970.
func parseMilli(text []byte) (time.Time, bool) {
	const most = 1 << 53 // beyond which a difference of times would overflow
	n, err := strconv.ParseInt(string(text), 10, 64)
	if err != nil || n <= 0 || n > most {
		return time.Time{}, false
	}
	return time.UnixMilli(n), true
}
