// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// outlet is standard output. Where whoever reads it does not, it waits, but not once a signal ends the command, which would hang
// otherwise.
type outlet struct {
	w    io.Writer
	file *os.File // a pipe, a terminal or a socket; nil: writing there does not wait for anybody

	mu    sync.Mutex // of the following
	ctx   context.Context
	stuck bool
}

var errStuck = errors.New("whoever reads what is written has stopped reading")

const (
	stuckTime = time.Second            // for what is left to be read, once the command is to end
	pollTime  = 100 * time.Millisecond // between two looks whether it is to end
	pieceSize = 4096                   // bytes that a pipe takes at once when it takes any (pipe(7))
)

func newOutlet(w io.Writer) *outlet {
	o := &outlet{w: w, ctx: context.Background()}
	if file, ok := w.(*os.File); ok {
		if info, err := file.Stat(); err == nil && info.Mode()&(os.ModeNamedPipe|os.ModeSocket|os.ModeCharDevice) != 0 {
			o.file = file
		}
	}
	return o
}

// endWith makes it wait no longer than the context lasts.
func (o *outlet) endWith(ctx context.Context) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ctx = ctx
}

// Write implements [io.Writer].
func (o *outlet) Write(b []byte) (written int, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.file == nil {
		return o.w.Write(b)
	}
	for len(b) > written && err == nil {
		if err = o.await(); err != nil {
			break
		}
		var n int
		n, err = o.file.Write(b[written:min(written+pieceSize, len(b))])
		written += n
	}
	return written, err
}

// await waits until somebody has read enough for more to be written.
func (o *outlet) await() error {
	var ended time.Time
	for {
		if o.stuck {
			return errStuck
		}
		polled := []unix.PollFd{{Fd: int32(o.file.Fd()), Events: unix.POLLOUT}}
		n, err := unix.Poll(polled, int(pollTime/time.Millisecond))
		switch {
		case err != nil && !errors.Is(err, unix.EINTR):
			return err
		case n > 0:
			return nil
		case o.ctx.Err() == nil:
		case ended.IsZero():
			ended = time.Now()
		case time.Since(ended) > stuckTime:
			o.stuck = true
		}
	}
}

// inlet is standard input, which ends with the command: who writes it may be silent for long.
type inlet struct {
	file *os.File
	ctx  context.Context
}

// newInlet returns a reader that a context ends, if it can.
func newInlet(ctx context.Context, r io.Reader) io.Reader {
	if file, ok := r.(*os.File); ok {
		return &inlet{file, ctx}
	}
	return r
}

// Read implements [io.Reader].
func (i *inlet) Read(b []byte) (int, error) {
	for {
		if err := i.ctx.Err(); err != nil {
			return 0, err
		}
		polled := []unix.PollFd{{Fd: int32(i.file.Fd()), Events: unix.POLLIN}}
		n, err := unix.Poll(polled, int(pollTime/time.Millisecond))
		switch {
		case err != nil && !errors.Is(err, unix.EINTR):
			return 0, err
		case n > 0:
			return i.file.Read(b)
		}
	}
}
