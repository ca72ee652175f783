// SPDX-License-Identifier: Apache-2.0

package policy

import "fmt"

// Verdict says what happens to new packets to this host that no rule opens.
type Verdict uint8

// The verdicts. Drop is the default; Reject drops and says so to the sender.
const (
	Drop Verdict = iota
	Accept
	Reject
)

// ForwardPolicy says what happens to packets that are routed through the host.
type ForwardPolicy uint8

// The forward policies. ForwardDrop is the default; ForwardEstablished accepts
// replies to what was seen to leave.
const (
	ForwardDrop ForwardPolicy = iota
	ForwardEstablished
	ForwardAccept
)

// InvalidPolicy says what happens to broken packets, and to those that belong to
// no flow and cannot begin one.
type InvalidPolicy uint8

// The invalid policies. InvalidLog is the default: it keeps the packets for
// "portcullis log", and the rest of the policy decides.
const (
	InvalidLog InvalidPolicy = iota
	InvalidDrop
	InvalidAccept
)

var (
	verdictWords = []string{Drop: "drop", Accept: "accept", Reject: "reject"}
	forwardWords = []string{ForwardDrop: "drop", ForwardEstablished: "established", ForwardAccept: "accept"}
	invalidWords = []string{InvalidLog: "log", InvalidDrop: "drop", InvalidAccept: "accept"}
)

// String returns the word of the policy file.
func (v Verdict) String() string { return enumWord(verdictWords, v) }

// String returns the word of the policy file.
func (f ForwardPolicy) String() string { return enumWord(forwardWords, f) }

// String returns the word of the policy file.
func (i InvalidPolicy) String() string { return enumWord(invalidWords, i) }

// MarshalText implements encoding.TextMarshaler.
func (v Verdict) MarshalText() ([]byte, error) { return marshalEnum(verdictWords, v) }

// MarshalText implements encoding.TextMarshaler.
func (f ForwardPolicy) MarshalText() ([]byte, error) { return marshalEnum(forwardWords, f) }

// MarshalText implements encoding.TextMarshaler.
func (i InvalidPolicy) MarshalText() ([]byte, error) { return marshalEnum(invalidWords, i) }

// UnmarshalText implements encoding.TextUnmarshaler.
func (v *Verdict) UnmarshalText(text []byte) error { return unmarshalEnum(verdictWords, v, text) }

// UnmarshalText implements encoding.TextUnmarshaler.
func (f *ForwardPolicy) UnmarshalText(text []byte) error {
	return unmarshalEnum(forwardWords, f, text)
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (i *InvalidPolicy) UnmarshalText(text []byte) error {
	return unmarshalEnum(invalidWords, i, text)
}

func enumWord[T ~uint8](words []string, v T) string {
	if int(v) < len(words) {
		return words[v]
	}
	return fmt.Sprintf("unknown(%d)", uint8(v))
}

func marshalEnum[T ~uint8](words []string, v T) ([]byte, error) {
	if int(v) < len(words) {
		return []byte(words[v]), nil
	}
	return nil, fmt.Errorf("value %d is none of %s", uint8(v), joinWords(words, "or"))
}

func unmarshalEnum[T ~uint8](words []string, v *T, text []byte) error {
	for i, w := range words {
		if w == string(text) {
			*v = T(i)
			return nil
		}
	}
	return fmt.Errorf("unknown value %s: write %s", quote(string(text)), joinWords(words, "or"))
}
