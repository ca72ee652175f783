// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"testing"
	"time"
)

// A command whose output nobody reads ends when it is to end, and one that somebody reads slowly writes all of it.
func TestNobodyReads(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	ctx, cancel := context.WithCancel(context.Background())
	o := newOutlet(w)
	o.endWith(ctx)
	written, failed := make(chan int, 1), make(chan error, 1)
	go func() {
		n, err := o.Write(make([]byte, 1<<20))
		written <- n
		failed <- err
	}()
	select {
	case n := <-written:
		t.Fatalf("%d bytes are written, and nobody reads", n)
	case <-time.After(300 * time.Millisecond):
	}
	cancel()
	select {
	case n := <-written:
		if err := <-failed; !errors.Is(err, errStuck) || n == 0 || n%pieceSize != 0 {
			t.Errorf("%d bytes are written: %v", n, err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("it waits for ever")
	}
	if n, err := o.Write([]byte("more")); n != 0 || !errors.Is(err, errStuck) {
		t.Errorf("and then %d bytes more: %v", n, err)
	}

	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	want := bytes.Repeat([]byte("0123456789"), 50_000)
	go func() {
		defer write.Close()
		if n, err := newOutlet(write).Write(want); n != len(want) || err != nil {
			t.Errorf("%d bytes are written: %v", n, err)
		}
	}()
	time.Sleep(50 * time.Millisecond)
	if got, err := io.ReadAll(read); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes are read: %v", len(got), err)
	}
}

// A command that waits for input ends when it is to end.
func TestNobodyWrites(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	ctx, cancel := context.WithCancel(context.Background())
	in := newInlet(ctx, r)
	if _, err := w.Write([]byte("some")); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 10)
	if n, err := in.Read(b); string(b[:n]) != "some" || err != nil {
		t.Errorf("%q is read, %v", b[:n], err)
	}
	time.AfterFunc(50*time.Millisecond, cancel)
	if n, err := in.Read(b); n != 0 || !errors.Is(err, context.Canceled) {
		t.Errorf("%d bytes are read, %v", n, err)
	}
}
