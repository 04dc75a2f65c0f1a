// SPDX-License-Identifier: Apache-2.0

package logpatterns

// Absorb takes in the patterns and counts of another miner as if m had seen its messages. sources has what the sources of the
// other one are here. Patterns past the limits are counted as overflow. The other miner is not changed.
func (m *Miner) Absorb(other *Miner, sources []uint8) {
	number := func(source uint8) uint8 {
		if int(source) < len(sources) {
			return min(sources[source], MaxSources-1)
		}
		return MaxSources - 1
	}
	for _, c := range other.overflow.appendTo(nil, Pattern{}) {
		m.overflow.add(number(c.Source), c.Level, c.Messages)
	}
	for _, p := range other.patterns {
		var all counts
		for _, c := range p.counts.appendTo(nil, Pattern{}) {
			all.add(number(c.Source), c.Level, c.Messages)
		}
		codes, err := m.codesFrom(other.tokensOf(p.codes))
		if err != nil { // of one that no state has
			eachFlat(all.flat(), m.overflow.add)
			continue
		}
		if same := m.byID[m.identity(&pattern{codes: codes})]; same != nil {
			m.addCounts(same, all.flat())
			continue
		}
		m.restore(codes, all.flat(), p.learned)
	}
	m.reindex()
}
