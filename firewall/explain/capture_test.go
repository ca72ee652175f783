// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
)

// recording returns packets in one of the formats of a library that others use.
func recording(t testing.TB, format string, packets ...[]byte) []byte {
	t.Helper()
	var b bytes.Buffer
	var write func(gopacket.CaptureInfo, []byte) error
	end := func() error { return nil }
	switch format {
	case "ng":
		w, err := pcapgo.NewNgWriterInterface(&b, pcapgo.NgInterface{Name: "eth1", LinkType: layers.LinkTypeEthernet}, pcapgo.DefaultNgWriterOptions)
		if err != nil {
			t.Fatal(err)
		}
		write, end = w.WritePacket, w.Flush
	default:
		w := pcapgo.NewWriter(&b)
		if format == "nanoseconds" {
			w = pcapgo.NewWriterNanos(&b)
		}
		if err := w.WriteFileHeader(65536, layers.LinkTypeEthernet); err != nil {
			t.Fatal(err)
		}
		write = w.WritePacket
	}
	for i, p := range packets {
		at := time.Unix(1700000000+int64(i), 250_000_000)
		if err := write(gopacket.CaptureInfo{Timestamp: at, CaptureLength: len(p), Length: len(p) + i}, p); err != nil {
			t.Fatal(err)
		}
	}
	if err := end(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestRecordingReadsWhatOthersWrite(t *testing.T) {
	for _, format := range []string{"microseconds", "nanoseconds", "ng"} {
		text := recording(t, format, []byte("first packet"), []byte("second"), nil)
		r, err := NewRecording(bytes.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		for i, want := range []string{"first packet", "second\x00", "\x00\x00"} {
			p, err := r.Next()
			if err != nil {
				t.Fatalf("%s: packet %d: %v", format, i, err)
			}
			name := ""
			if format == "ng" {
				name = "eth1"
			}
			if string(p.Bytes) != want || p.Number != i+1 || !p.Ethernet || p.Interface != name || !p.Time.Equal(time.Unix(1700000000+int64(i), 250_000_000)) {
				t.Errorf("%s: packet %d is %+v", format, i, p)
			}
		}
		if p, err := r.Next(); !errors.Is(err, io.EOF) {
			t.Errorf("%s: behind the last packet: %+v, %v", format, p, err)
		}
		// Wherever it was cut off, what is whole is read, and the rest is no packet.
		for n := range len(text) {
			r, err := NewRecording(bytes.NewReader(text[:n]))
			packets := 0
			for err == nil {
				if _, err = r.Next(); err == nil {
					packets++
				}
			}
			if packets > 3 || packets == 3 && n < len(text)-40 {
				t.Errorf("%s: %d packets in %d of %d bytes", format, packets, n, len(text))
			}
		}
	}
}

func TestRecordingInTheOtherOrderOfBytes(t *testing.T) {
	var b bytes.Buffer
	for _, v := range []any{uint32(magicMicro), uint32(2<<16 | 4), uint64(0), uint32(65536), uint32(linkRaw), uint32(7), uint32(5), uint32(4), uint32(4), []byte("\x45abc")} {
		binary.Write(&b, binary.BigEndian, v)
	}
	r, err := NewRecording(&b)
	if err != nil {
		t.Fatal(err)
	}
	p, err := r.Next()
	if err != nil || string(p.Bytes) != "\x45abc" || p.Ethernet || !p.Time.Equal(time.Unix(7, 5000)) {
		t.Errorf("%+v, %v", p, err)
	}
}

// A stranger may have written the file.
func FuzzRecording(f *testing.F) {
	for _, format := range []string{"microseconds", "nanoseconds", "ng"} {
		f.Add(recording(f, format, []byte("first packet"), []byte("second")))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := NewRecording(bytes.NewReader(text))
		for n := 0; err == nil && n < 1000; n++ {
			var p *Recorded
			if p, err = r.Next(); err == nil && p == nil {
				t.Fatal("neither a packet nor an error")
			}
			if p != nil {
				shorten(p)
			}
		}
	})
}

func TestNoRecording(t *testing.T) {
	for _, text := range []string{"", "abc", "open: [http]\n", strings.Repeat("\x00", 100)} {
		if _, err := NewRecording(strings.NewReader(text)); err == nil {
			t.Errorf("%q is a recording", text)
		}
	}
}
