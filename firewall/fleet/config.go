// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"reflect"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/portcullis-firewall/portcullis/firewall/fleet/store"
	"github.com/portcullis-firewall/portcullis/firewall/savefile"
	"github.com/portcullis-firewall/portcullis/policy"
)

// Config is the fleet.yaml of a host.
type Config struct {
	From  string `yaml:"from"`  // the URL of the store
	Key   Words  `yaml:"key"`   // files of public keys
	Group string `yaml:"group"` // of this host
	Name  string `yaml:"name"`  // of this host
	Facts Facts  `yaml:"facts"`

	Address     string `yaml:"address"`     // at which others probe this host; "": the one that it reaches others from
	CA          string `yaml:"ca"`          // for the server's certificate
	Certificate string `yaml:"certificate"` // of this host
	Private     string `yaml:"private"`     // the key of that certificate

	Keys []PublicKey `yaml:"-"`
}

// ReadConfig reads a fleet.yaml, and the public keys that it names.
func ReadConfig(path string) (*Config, error) {
	text, err := policy.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the fleet's file: %w", err)
	}
	if err := savefile.Check(path); err != nil {
		return nil, fmt.Errorf("the fleet's file is not trusted: %w", err)
	}
	c, err := ParseConfig(path, text)
	if err != nil {
		return nil, err
	}
	for _, file := range c.Key {
		keys, err := ReadPublicKeys(file)
		if err != nil {
			return nil, err
		}
		c.Keys = append(c.Keys, keys...)
	}
	return c, nil
}

// ParseConfig reads the text of a fleet.yaml. Relative paths begin where that is.
func ParseConfig(path string, text []byte) (*Config, error) {
	c := new(Config)
	if err := loadYAML(path, text, c); err != nil {
		return nil, err
	}
	missing := func(key, example string) error {
		return fmt.Errorf("%s: there is no %q: write %q", path, key+":", key+": "+example)
	}
	switch {
	case c.From == "":
		return nil, missing("from", "etcd://HOST:2379")
	case len(c.Key) == 0:
		return nil, missing("key", "fleet.pub")
	case c.Group == "":
		return nil, missing("group", "web")
	case c.Name == "":
		return nil, missing("name", "h1")
	}
	err := errors.Join(store.CheckName("group", c.Group), CheckHost(c.Name), c.Facts.check())
	if _, bad := netip.ParseAddr(c.Address); c.Address != "" && bad != nil {
		err = errors.Join(err, fmt.Errorf("address: %q is no address", c.Address))
	}
	if (c.Certificate == "") != (c.Private == "") {
		err = errors.Join(err, errors.New("certificate: and private: belong together: write both, or none"))
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	within := func(file *string) {
		if *file != "" && !filepath.IsAbs(*file) {
			*file = filepath.Join(filepath.Dir(path), *file)
		}
	}
	for i := range c.Key {
		within(&c.Key[i])
	}
	for _, file := range []*string{&c.CA, &c.Certificate, &c.Private} {
		within(file)
	}
	if dir, ok := strings.CutPrefix(c.From, "dir:"); ok && dir != "" {
		within(&dir)
		c.From = "dir:" + dir
	}
	return c, nil
}

// StoreOptions returns how the host asks its store.
func (c *Config) StoreOptions() store.Options {
	return store.Options{CA: c.CA, Certificate: c.Certificate, Key: c.Private}
}

// Host returns the host as the variables of a policy see it.
func (c *Config) Host() *Host { return &Host{Name: c.Name, Group: c.Group, Facts: c.Facts} }

// loadYAML reads a file all of whose keys are known.
func loadYAML(path string, text []byte, to any) error {
	err := yaml.Load(text, to, yaml.WithKnownFields(), yaml.WithSingleDocument())
	var many *yaml.LoadErrors
	var one *yaml.LoadError
	switch {
	case err == nil || strings.Contains(err.Error(), "no documents in stream"): // there is nothing in it
		return nil
	case errors.As(err, &many) && len(many.Errors) > 0:
		one = many.Errors[0]
	case !errors.As(err, &one):
		return fmt.Errorf("%s: %w", path, err)
	}
	message := one.Message
	if field, _, found := strings.Cut(strings.TrimPrefix(message, "field "), " not found in type"); found {
		message = fmt.Sprintf("unknown key %q: the keys are %s", field, strings.Join(keysOf(to), ", "))
	}
	return fmt.Errorf("%s:%d: %s", path, max(one.Mark.Line, 1), message)
}

// keysOf returns the keys of the top of a file.
func keysOf(v any) (keys []string) {
	t := reflect.TypeOf(v).Elem()
	for i := range t.NumField() {
		if key, _, _ := strings.Cut(t.Field(i).Tag.Get("yaml"), ","); key != "-" && key != "" {
			keys = append(keys, key)
		}
	}
	return keys
}

// GroupFile is what a publisher says of a group, beside its policy.
type GroupFile struct {
	Layer  string  `yaml:"layer"`  // a file: what the group has of its own
	Hosts  string  `yaml:"hosts"`  // a folder: a file for each host that has something of its own
	Probes []Probe `yaml:"probes"` // that have to succeed under a new policy
	Within string  `yaml:"within"` // how long a host may take to confirm it
	Bans   *Bans   `yaml:"bans"`   // that travel

	within Duration
}

// ReadGroupFile reads what a publisher says of a group.
func ReadGroupFile(path string) (*GroupFile, error) {
	text, err := policy.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the settings: %w", err)
	}
	return ParseGroupFile(path, text)
}

// ParseGroupFile reads the text of the file. Relative paths begin where that is.
func ParseGroupFile(path string, text []byte) (*GroupFile, error) {
	g := new(GroupFile)
	if err := loadYAML(path, text, g); err != nil {
		return nil, err
	}
	if g.Within != "" && g.within.UnmarshalText([]byte(g.Within)) != nil {
		return nil, fmt.Errorf("%s: within: %q is no time: write 30s", path, g.Within)
	}
	settings := g.Settings()
	if err := settings.check(); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	for _, file := range []*string{&g.Layer, &g.Hosts} {
		if *file != "" && !filepath.IsAbs(*file) {
			*file = filepath.Join(filepath.Dir(path), *file)
		}
	}
	return g, nil
}

// Settings returns what of it is part of a bundle.
func (g *GroupFile) Settings() Settings {
	return Settings{Probes: g.Probes, Within: g.within, Bans: g.Bans}
}
