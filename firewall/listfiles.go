// SPDX-License-Identifier: Apache-2.0

package firewall

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/portcullis-firewall/portcullis/firewall/fetch"
	"github.com/portcullis-firewall/portcullis/firewall/savefile"
	"github.com/portcullis-firewall/portcullis/policy"
)

// listFiles are the files of lists that a policy file names. Each is read once, so that all of a change sees the same.
type listFiles struct {
	also    []uint32 // users who may write to them, beside root
	copies  string   // the directory of last good copies, for files that are not good; "" where none are wanted
	files   map[string]listFile
	fetched []policy.List // that are fetched, each as often as it was read
	store   fetch.Store   // with the copies of these
	cache   policy.ListCache
	lost    bool // a file that is missing is an empty list
}

// listFile is what a list file held.
type listFile struct {
	text   []byte
	err    error
	copied bool // the text is that of a last good copy
}

func (fw *Firewall) newListFiles(also ...uint32) *listFiles {
	return &listFiles{also: also, files: make(map[string]listFile), store: fw.listStore()}
}

// listStore returns where the copies of lists are that are fetched.
func (fw *Firewall) listStore() fetch.Store {
	dir := stateDir
	if path := fw.lastGoodPath(); path != "" {
		dir = filepath.Dir(path)
	}
	return fetch.Store{Dir: filepath.Join(dir, "lists")}
}

func (l *listFiles) reader() policy.Reader {
	return policy.Reader{ReadList: l.read, ReadURL: l.readURL, Cache: &l.cache}
}

// readURL returns the copy of a list that is fetched.
func (l *listFiles) readURL(list policy.List) ([]byte, error) {
	path := l.store.Path(list.URL)
	file, ok := l.files[path]
	if !ok {
		var c *fetch.Copy
		if c, file.err = l.store.Read(list.URL); file.err == nil {
			file.text = c.Text
		}
		l.files[path] = file
	}
	if list.Missing = ""; file.err != nil {
		list.Missing = file.err.Error()
	}
	l.fetched = append(l.fetched, list)
	return file.text, file.err
}

// isFetched reports whether a file is the copy of a list that is fetched.
func (l *listFiles) isFetched(path string) bool { return filepath.Dir(path) == l.store.Dir }

// read returns the text of a list file that nobody else can change.
func (l *listFiles) read(path string) ([]byte, error) {
	file, ok := l.files[path]
	if !ok {
		file.text, file.err = readTrustedList(path, l.also...)
		if l.copies != "" {
			file = file.orCopy(path, l.copies)
		}
		if l.lost && file.err != nil {
			file = listFile{text: []byte("# " + noFile + "\n")}
		}
		l.files[path] = file
	}
	return file.text, file.err
}

func readTrustedList(path string, also ...uint32) ([]byte, error) {
	text, err := policy.ReadListFile(path)
	if err != nil {
		return nil, err
	}
	if err := savefile.Check(path, also...); err != nil {
		return nil, fmt.Errorf("the list file is not trusted: %w", err)
	}
	return text, nil
}

// orCopy returns the last good copy of a file that is not good, if there is one.
func (f listFile) orCopy(path, dir string) listFile {
	err := f.err
	if err == nil {
		_, err = policy.ParseList(path, f.text)
	}
	if err == nil {
		return f
	}
	text, err := os.ReadFile(copyPath(dir, path))
	if err != nil {
		return f
	}
	_, text, _ = bytes.Cut(text, []byte("\n")) // without the header
	return listFile{text: text, copied: true}
}

// movesTo returns an error if the text would mean other list files as that of the policy file.
func (s *source) movesTo(config string) error {
	for _, l := range s.policy.Lists {
		if there := filepath.Join(filepath.Dir(config), l.File); l.File != "" && !filepath.IsAbs(l.File) && there != l.Path {
			return fmt.Errorf("%s: the list %s is in %s, but once confirmed it would be in %s: write an absolute path", s.path, l.Name, l.Path, there)
		}
	}
	return nil
}

// paths returns the paths of the files, in order.
func (l *listFiles) paths() []string {
	if l == nil {
		return nil
	}
	return slices.Sorted(maps.Keys(l.files))
}

// copied returns the paths of the copies that stand in for files.
func (l *listFiles) copied() (paths []string) {
	for _, path := range l.paths() {
		if l.files[path].copied {
			paths = append(paths, copyPath(l.copies, path))
		}
	}
	return paths
}

// stamp stands for what a policy file and its list files hold, a line each as sha256sum(1) writes it. The text is nil
// where there is no policy file.
func stamp(config string, text []byte, lists *listFiles) string {
	return stampBy(config, text, lists.paths(), func(path string) string {
		file := lists.files[path]
		if file.err != nil {
			return digest([]byte(file.err.Error()))
		}
		return digest(file.text)
	})
}

// stampBy is stamp for list files whose digests a function knows.
func stampBy(config string, text []byte, paths []string, digestOf func(path string) string) string {
	var b strings.Builder
	b.WriteString(digest(text) + "  " + config + "\n")
	for _, path := range paths {
		b.WriteString(digestOf(path) + "  " + path + "\n")
	}
	return b.String()
}

// stampOf is stamp for a text whose list files are to be read now.
func (fw *Firewall) stampOf(config string, text []byte) (string, *listFiles) {
	lists := fw.newListFiles()
	_, _ = lists.reader().Parse(config, text) // what is wrong with it was told by who put it there
	return stamp(config, text, lists), lists
}

// changedFiles returns the paths of which two stamps differ, or that of the policy file where there was none before.
func changedFiles(before, now string) (paths []string) {
	if before == "" {
		now, _, _ = strings.Cut(now, "\n")
	}
	for line := range strings.Lines(now) {
		if _, path, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "  "); ok && !strings.Contains("\n"+before, "\n"+line) {
			paths = append(paths, path)
		}
	}
	return paths
}

// readDespiteLists is readSource with the last good copies of list files that are not good.
func (fw *Firewall) readDespiteLists(config string) (*source, error) {
	text, err := readTrusted(config)
	if err != nil {
		return nil, err
	}
	s, mistakes := parseSource(config, text, fw.newListFiles())
	if mistakes == nil {
		return s, nil
	}
	lists := fw.newListFiles()
	lists.copies = fw.copiesDir()
	if s, err = parseSource(config, text, lists); err != nil || len(lists.copied()) == 0 {
		return nil, mistakes
	}
	s.mistakes = mistakes
	return s, nil
}

// changedLists returns the list files that rules in force name for other networks than a policy file, and these rules by
// the keys of their changes and their texts. Of several in one clause it cannot tell which it is.
func changedLists(inForce, file *policy.Policy) (paths []string, rules map[string]bool) {
	files := make(map[string]string)
	for _, l := range file.Lists {
		if l.Path != "" {
			files["@"+l.Name] = l.Path
		}
	}
	if len(files) == 0 {
		return nil, nil
	}
	inFile := make(map[string]policy.Rule)
	for _, r := range file.Open {
		inFile[changeKey(r)+" "+r.String()] = r
	}
	rules = make(map[string]bool)
	for _, have := range inForce.Open {
		text := changeKey(have) + " " + have.String()
		want, ok := inFile[text]
		if !ok {
			continue
		}
		spelling := want.Spelling()
		for _, clause := range []struct {
			text       string
			have, want []netip.Prefix
		}{{spelling.From, have.From, want.From}, {spelling.Except, have.Except, want.Except}, {spelling.To, have.To, want.To}} {
			if clause.text == "" || sameNetworks(clause.have, clause.want) {
				continue
			}
			for word := range strings.SplitSeq(clause.text, ",") {
				if path := files[strings.TrimSpace(word)]; path != "" {
					rules[text] = true
					paths = append(paths, path)
				}
			}
		}
	}
	return union(paths), rules
}

func sameNetworks(a, b []netip.Prefix) bool {
	sorted := func(networks []netip.Prefix) []netip.Prefix {
		return slices.SortedFunc(slices.Values(networks), func(p, q netip.Prefix) int {
			return cmp.Or(p.Addr().Compare(q.Addr()), cmp.Compare(p.Bits(), q.Bits()))
		})
	}
	return slices.Equal(a, b) || slices.Equal(sorted(a), sorted(b))
}

// copiesDir returns the directory of the last good copies of list files, beside the last good policy, or "" for none.
func (fw *Firewall) copiesDir() string {
	path := fw.lastGoodPath()
	if path == "" {
		return ""
	}
	return filepath.Join(filepath.Dir(path), "last-good-lists")
}

// copyPath returns where the copy of a list file is.
func copyPath(dir, path string) string {
	sum := sha256.Sum256([]byte(path))
	return filepath.Join(dir, hex.EncodeToString(sum[:16])+".txt")
}

// keepCopies keeps the list files of the policy in force, and no others. Where that fails the copies of before stay.
func (fw *Firewall) keepCopies(lists *listFiles) error {
	dir := fw.copiesDir()
	if lists == nil || dir == "" {
		return nil
	}
	if len(lists.files) > 0 {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	var wanted []string
	var failed error
	for _, path := range lists.paths() {
		if lists.isFetched(path) {
			continue
		}
		file, to := lists.files[path], copyPath(dir, path)
		wanted = append(wanted, filepath.Base(to))
		if file.err != nil || file.copied {
			continue
		}
		text := fmt.Appendf(nil, "# The last good copy of %q, kept by portcullis for a boot at which that file is bad.\n%s", path, file.text)
		if old, err := os.ReadFile(to); err == nil && string(old) == string(text) {
			continue
		}
		if err := savefile.SavePrivate(to, text); err != nil {
			failed = errors.Join(failed, fmt.Errorf("the list %s: %w", path, err))
		}
	}
	if failed != nil {
		return failed
	}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		if !slices.Contains(wanted, e.Name()) {
			err = errors.Join(err, os.Remove(filepath.Join(dir, e.Name())))
		}
	}
	return err
}
