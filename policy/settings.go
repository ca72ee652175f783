// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// Setting is what a policy says about one key.
type Setting struct {
	Key   string
	Value any // a string, a list of strings, or Settings
}

// Settings lists what a policy says, in the order of the file. In JSON it is an
// object.
type Settings []Setting

// Settings returns what the policy says but for its interfaces and rules, for
// a status. What may be left out of a file is left out where it has its
// default.
func (p *Policy) Settings() Settings { return settings(keys, p) }

func settings(list []*key, p *Policy) Settings {
	out := Settings{}
	for _, k := range list {
		if !k.apart && (k.always || !k.isDefault(p)) {
			out = append(out, Setting{k.Name, k.view(p)})
		}
	}
	return out
}

// String returns the settings on one line: "input drop, timeouts udp 1m".
func (s Settings) String() string {
	texts := make([]string, len(s))
	for i, setting := range s {
		switch value := setting.Value.(type) {
		case []string:
			texts[i] = fmt.Sprintf("%s [%s]", setting.Key, strings.Join(value, ", "))
		case Settings:
			if len(value) > 0 && value[0].Key == defaultWord { // then come interfaces
				texts[i] = fmt.Sprintf("%s %s (%s)", setting.Key, strings.TrimPrefix(value[:1].String(), defaultWord+" "), value[1:])
				break
			}
			texts[i] = fmt.Sprintf("%s %s", setting.Key, value)
		default:
			texts[i] = fmt.Sprintf("%s %s", setting.Key, value)
		}
	}
	return strings.Join(texts, ", ")
}

// MarshalJSON implements json.Marshaler.
func (s Settings) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, setting := range s {
		key, err := json.Marshal(setting.Key)
		if err != nil {
			return nil, err
		}
		value, err := json.Marshal(setting.Value)
		if err != nil {
			return nil, err
		}
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "%s:%s", key, value)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// UnmarshalJSON implements json.Unmarshaler.
func (s *Settings) UnmarshalJSON(data []byte) error {
	d := json.NewDecoder(bytes.NewReader(data))
	if open, err := d.Token(); err != nil {
		return err
	} else if open != json.Delim('{') {
		return errors.New("settings are no json object")
	}
	*s = Settings{}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return err
		}
		var raw json.RawMessage
		if err := d.Decode(&raw); err != nil {
			return err
		}
		value, err := settingValue(raw)
		if err != nil {
			return fmt.Errorf("setting %s: %w", quote(fmt.Sprint(key)), err)
		}
		*s = append(*s, Setting{fmt.Sprint(key), value})
	}
	return nil
}

func settingValue(raw json.RawMessage) (any, error) {
	switch raw[0] {
	case '{':
		var inner Settings
		err := json.Unmarshal(raw, &inner)
		return inner, err
	case '[':
		var list []string
		err := json.Unmarshal(raw, &list)
		return list, err
	}
	var text string
	err := json.Unmarshal(raw, &text)
	return text, err
}

// Get returns what is said about a key, or nil.
func (s Settings) Get(key string) any {
	for _, setting := range s {
		if setting.Key == key {
			return setting.Value
		}
	}
	return nil
}
