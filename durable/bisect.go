package durable

import (
	"errors"
	"fmt"
)

// A unit is what a batch cannot be divided further into.
type unit struct {
	part    *part
	outcome *run
}

// hopeless is how many units in a row are refused one by one before the store
// is taken to be at fault and not they.
const hopeless = 3

// bisect sees to a batch that the store has refused as a whole, for a reason
// that may be a part of it: it finds that part.
func (b *batcher) bisect(c *commit, err error) {
	var units []unit
	for _, ps := range [][]*part{c.inserts, c.funcs, c.fires} {
		for _, p := range ps {
			units = append(units, unit{part: p})
		}
	}
	for _, r := range c.outcomes {
		units = append(units, unit{outcome: r})
	}
	if len(units) == 0 || len(c.batch.Claims)+len(c.progress) > 0 && len(units) == 1 {
		b.setback(err) // the claims may be what it refuses
	}
	s := search{b: b, boot: c.batch.Boot, again: c.batch.Again}
	s.units(units, err, len(units) == 1 && len(c.batch.Claims)+len(c.progress) == 0)
}

// A search commits parts of a batch by themselves.
type search struct {
	b       *batcher
	boot    Boot
	again   bool
	refused int // in a row, none having gone through
	fine    bool
}

// units commits units; tried says that this very set has been refused with
// err already.
func (s *search) units(units []unit, err error, tried bool) {
	if len(units) == 0 {
		return
	}
	if !tried {
		c := s.commit(units)
		if !s.fine && s.refused >= hopeless {
			s.b.failed(c, err)
			return
		}
		switch err = s.b.commit(c); {
		case err == nil:
			s.fine = true
			return
		case errors.Is(err, ErrUnknown):
			s.b.unknown(c, err)
			return
		case unavailable(err):
			s.b.failed(c, err)
			return
		}
	}
	if len(units) == 1 {
		s.refused++
		s.reject(units[0], err)
		return
	}
	half := len(units) / 2
	s.units(units[:half], err, false)
	s.units(units[half:], err, false)
}

func (s *search) commit(units []unit) *commit {
	c := &commit{}
	c.batch.Boot, c.batch.Again = s.boot, s.again
	for _, u := range units {
		if u.part != nil {
			c.addPart(u.part)
		} else {
			c.addOutcome(u.outcome)
		}
	}
	return c
}

// reject ends a part that the store refuses. An outcome is not given up: it is
// recorded with less in it, again and again.
func (s *search) reject(u unit, err error) {
	if u.part != nil {
		u.part.settle(fmt.Errorf("the store refuses it: %w", err))
		return
	}
	s.b.setback(err)
	u.outcome.simplify(err)
	s.b.mu.Lock()
	defer s.b.mu.Unlock()
	if s.again {
		s.b.again.outcomes = append(s.b.again.outcomes, u.outcome)
	} else {
		s.b.outcomes.push(u.outcome)
	}
}
