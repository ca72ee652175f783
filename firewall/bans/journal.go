// SPDX-License-Identifier: Apache-2.0

// Package bans has what bans need beside the filter: the journal by which they outlive a boot, the lines in which they are
// written, and the guard that keeps them from hitting who looks after this host.
package bans

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/loader/lock"
	"github.com/portcullis-firewall/portcullis/maps"
)

// Journal is a file to which each ban is appended, and each end of one. What is cut off by a crash spoils nothing but
// itself: every line has a checksum, and those that fail it are left out. Once in a while the file is written anew with
// what still holds. Who changes it holds a lock on the file, as the firewall's needs room in /run.
//
//	portcullis bans, version 1, 000000000000 bytes
//	1f0c77a2 + 203.0.113.7 1764340000000 1764343600000 sshd
//	9b2ad0e1 - 203.0.113.7
//	5d31c0f8 ! 192.0.2.1 1764340000000 - by force
//
// The bytes are those of the file when it was last written anew, the times are milliseconds since 1970, and "-" is a ban
// that does not end. An exclamation mark is a ban that somebody has insisted on.
type Journal struct{ path string }

// NewJournal returns the journal in a file, which need not exist.
func NewJournal(path string) Journal { return Journal{path} }

// Path returns the path of the journal.
func (j Journal) Path() string { return j.path }

// ErrGrown is returned when the journal has been written, but could not be made smaller.
var ErrGrown = errors.New("the journal of bans could not be written anew, and goes on growing")

const (
	journalTitle  = "portcullis bans, version "
	journalHeader = journalTitle + "1, %012d bytes\n"
	headerLen     = len(journalTitle) + len("1, 000000000000 bytes\n")

	manyBans   = 1024     // that are worth to be told of in the first line
	slack      = 64 << 10 // bytes that a journal may grow by, however small it is
	chunk      = 1 << 20  // bytes that are written at once
	longLine   = 512      // bytes; more than any line that is written
	nextFile   = ".new"   // what is added to the name of a journal that is being written anew
	sumLen     = 8        // hexadecimal digits
	forEver    = "-"
	addedMark  = '+'
	forcedMark = '!'
	endedMark  = '-'
)

var checksums = sync.OnceValue(func() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) })

// Add appends bans, which are on the disk when it returns. Where none of them takes the place of another one, they make
// the journal no reason to be written anew.
func (j Journal) Add(bans []maps.Ban, fresh bool) error {
	if err := os.MkdirAll(filepath.Dir(j.path), 0o700); err != nil {
		return err
	}
	unlock, err := j.lock()
	if err != nil {
		return err
	}
	defer unlock()
	if info, err := os.Lstat(j.path); err == nil && info.Mode().IsRegular() && info.Size() == 0 {
		return j.write(func(add func(*maps.Ban)) error {
			for i := range bans {
				add(&bans[i])
			}
			return nil
		})
	}
	return j.append(len(bans) >= manyBans && fresh, func(w *journalWriter) {
		for i := range bans {
			w.add(&bans[i])
		}
	})
}

// Remove appends that bans have ended.
func (j Journal) Remove(prefixes []netip.Prefix) error {
	if _, err := os.Lstat(j.path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	unlock, err := j.lock()
	if err != nil {
		return err
	}
	defer unlock()
	return j.append(false, func(w *journalWriter) {
		for _, p := range prefixes {
			w.remove(p)
		}
	})
}

// Replace appends that bans have ended, and others that have begun.
func (j Journal) Replace(ended []netip.Prefix, begun []maps.Ban) error {
	if err := os.MkdirAll(filepath.Dir(j.path), 0o700); err != nil {
		return err
	}
	unlock, err := j.lock()
	if err != nil {
		return err
	}
	defer unlock()
	return j.append(false, func(w *journalWriter) {
		for _, p := range ended {
			w.remove(p)
		}
		for i := range begun {
			w.add(&begun[i])
		}
	})
}

// Rewrite writes the journal anew, with the bans that each adds.
func (j Journal) Rewrite(each func(add func(*maps.Ban)) error) error {
	unlock, err := j.lock()
	if err != nil {
		return err
	}
	defer unlock()
	return j.write(each)
}

// Clear ends all bans.
func (j Journal) Clear() error {
	if _, err := os.Lstat(j.path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	unlock, err := j.lock()
	if err != nil {
		return err
	}
	defer unlock()
	return j.write(func(func(*maps.Ban)) error { return nil })
}

// lock keeps others from the journal, which is an empty file where there was none.
func (j Journal) lock() (unlock func(), err error) { return lock.File(context.Background(), j.path) }

// append appends records, that are as good as those of a journal that was written anew or not. What cannot be written whole
// is taken back.
func (j Journal) append(lasting bool, records func(*journalWriter)) (err error) {
	f, err := j.open()
	if err != nil {
		return err
	}
	defer f.Close()
	base, size, titled, err := check(f)
	if err != nil {
		return fmt.Errorf("%s: %w", j.path, err)
	}
	w := &journalWriter{to: io.NewOffsetWriter(f, size)}
	if size == 0 {
		w.header(0)
	} else {
		var last [1]byte
		if _, err := f.ReadAt(last[:], size-1); err != nil {
			return err
		}
		if last[0] != '\n' { // a crash has cut the last line off
			w.buffer = append(w.buffer, '\n')
		}
	}
	records(w)
	if err = w.flush(); err == nil && lasting && titled {
		base += w.written
		_, err = f.WriteAt(fmt.Appendf(nil, journalHeader, base), 0)
	}
	if err == nil {
		err = unix.Fdatasync(int(f.Fd()))
	}
	if err != nil {
		_ = f.Truncate(size) // or the checksums tell
		return fmt.Errorf("write %s: %w", j.path, err)
	}
	return nil
}

// IsLong reports whether much of the journal may say nothing any more, so that it is to be written anew.
func (j Journal) IsLong() bool {
	f, err := j.open()
	if err != nil {
		return false // there is none, or its writers say what is wrong
	}
	defer f.Close()
	base, size, _, err := check(f)
	return err == nil && size > 2*base+slack
}

// open opens the journal to append to it.
func (j Journal) open() (*os.File, error) {
	f, err := os.OpenFile(j.path, os.O_RDWR|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		f.Close()
		return nil, errors.Join(err, fmt.Errorf("%s is not a regular file: remove it", j.path))
	}
	return f, nil
}

// check reads what the first line says, if it is whole, and the size of the file.
func check(f *os.File) (base, size int64, titled bool, err error) {
	info, err := f.Stat()
	if err != nil {
		return 0, 0, false, err
	}
	first := make([]byte, headerLen)
	n, err := f.ReadAt(first, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, 0, false, err
	}
	base, err = parseHeader(first[:n])
	return base, info.Size(), n == headerLen && bytes.HasPrefix(first, []byte(journalTitle)) && first[n-1] == '\n', err
}

// parseHeader returns the size that the first line tells, 0 where it is damaged, or refuses what a later version wrote.
func parseHeader(line []byte) (base int64, err error) {
	rest, ok := bytes.CutPrefix(line, []byte(journalTitle))
	if !ok {
		return 0, nil
	}
	version, rest, ok := bytes.Cut(rest, []byte(", "))
	if !ok {
		return 0, nil
	}
	if string(version) != "1" {
		return 0, fmt.Errorf("a later version of portcullis has written it (format %.8q): use that version", version)
	}
	digits, _, _ := bytes.Cut(rest, []byte(" "))
	base, err = strconv.ParseInt(string(digits), 10, 64)
	if err != nil || base < 0 || base > 1<<40 {
		return 0, nil
	}
	return base, nil
}

// Compact writes the journal anew, with the bans that keep returns true for, and those that rest, if any, adds then. Their times are as they were written: whoever
// knows that the clock was another then may correct them.
func (j Journal) Compact(keep func(*maps.Ban) bool, rest func(add func(*maps.Ban)) error) error {
	if err := os.MkdirAll(filepath.Dir(j.path), 0o700); err != nil {
		return err
	}
	unlock, err := j.lock()
	if err != nil {
		return err
	}
	defer unlock()
	return j.write(func(add func(*maps.Ban)) error {
		_, err := j.each(func(b maps.Ban) error {
			if keep(&b) {
				add(&b)
			}
			return nil
		})
		if err == nil && rest != nil {
			err = rest(add)
		}
		return err
	})
}

// write replaces the journal whole, by the bans that each adds.
func (j Journal) write(each func(add func(*maps.Ban)) error) (err error) {
	next := j.path + nextFile // always the same, so that killed processes leave one at most
	f, err := os.OpenFile(next, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(next)
		}
	}()
	w := &journalWriter{to: f}
	w.header(0)
	if err = each(w.add); err == nil {
		err = w.flush()
	}
	if err == nil {
		_, err = f.WriteAt(fmt.Appendf(nil, journalHeader, w.written), 0)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", next, err)
	}
	if err = os.Rename(next, j.path); err != nil {
		return err
	}
	return syncDir(j.path)
}

// syncDir makes a new name in the directory of a file outlive a crash.
func syncDir(path string) error {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

// journalWriter writes lines of a journal, many at a time.
type journalWriter struct {
	to      io.Writer
	buffer  []byte
	written int64
	err     error
}

func (w *journalWriter) header(size int64) { w.buffer = fmt.Appendf(w.buffer, journalHeader, size) }

func (w *journalWriter) add(b *maps.Ban) {
	mark := byte(addedMark)
	if b.Forced {
		mark = forcedMark
	}
	start := w.begin(mark, b.Prefix)
	w.buffer = append(strconv.AppendInt(append(w.buffer, ' '), b.Since.UnixMilli(), 10), ' ')
	if b.Until.IsZero() {
		w.buffer = append(w.buffer, forEver...)
	} else {
		w.buffer = strconv.AppendInt(w.buffer, b.Until.UnixMilli(), 10)
	}
	if b.Reason != "" {
		w.buffer = append(append(w.buffer, ' '), b.Reason...)
	}
	w.end(start)
}

func (w *journalWriter) remove(p netip.Prefix) { w.end(w.begin(endedMark, p)) }

// begin begins a line, and returns where it does.
func (w *journalWriter) begin(mark byte, p netip.Prefix) (start int) {
	start = len(w.buffer)
	w.buffer = append(w.buffer, "00000000 "...)
	w.buffer = append(w.buffer, mark, ' ')
	if p.IsSingleIP() {
		w.buffer = p.Addr().AppendTo(w.buffer)
	} else {
		w.buffer = p.AppendTo(w.buffer)
	}
	return start
}

// end writes the checksum of the line that began at start.
func (w *journalWriter) end(start int) {
	putSum(w.buffer[start:], crc32.Checksum(w.buffer[start+sumLen+1:], checksums()))
	w.buffer = append(w.buffer, '\n')
	if len(w.buffer) >= chunk {
		_ = w.flush() // the last one tells
	}
}

func (w *journalWriter) flush() error {
	if w.err == nil {
		_, w.err = w.to.Write(w.buffer)
		w.written += int64(len(w.buffer))
	}
	w.buffer = w.buffer[:0]
	return w.err
}

// putSum writes a checksum in hexadecimal.
func putSum(to []byte, sum uint32) {
	const digits = "0123456789abcdef"
	for i := range sumLen {
		to[i] = digits[sum>>(28-4*i)&0xf]
	}
}
