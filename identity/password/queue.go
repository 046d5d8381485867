package password

import "slices"

// Caller is whom a computation is for, as far as the queue has to know. The
// queue is shared out between sites, what a site has of it between its networks,
// and what a network has between the accounts that its clients are on.
type Caller struct {
	Site    string // that has the network, and may have others; "" as for that
	Network string // of the client; "" for what no client asks for
	Account string // whose password it is, or is to be
}

func (c Caller) path() []string { return []string{c.Site, c.Network, c.Account} }

// shareOf is the part of the queue that one share may have while others wait: a
// quarter, and a quarter of that for a network beside others of its site or an
// account beside others of its network.
// Alone it may have all.
const shareOf = 4

// share is what a site has of the queue, a network of what its site has, or an
// account of what its network has; the whole queue is a share too. It is served in turn with the others
// beside it.
type share struct {
	name  string
	size  int      // jobs in it
	parts []*share // that have jobs, the next in turn first; none in an account's
	jobs  []*job   // of an account, the oldest first
}

// part is the share of a name; a new one that is not among the parts yet where
// it has no jobs.
func (s *share) part(name string) *share {
	for _, p := range s.parts {
		if p.name == name {
			return p
		}
	}
	return &share{name: name}
}

// admit says whether there is room for a job under a path, in a share of at
// most limit jobs. The job may have to take the place of another, which is then
// the newest one of whoever has the most: only ever of somebody who has more.
func (s *share) admit(limit int, path []string) (instead *job, ok bool) {
	if len(path) == 0 {
		return nil, s.size < limit
	}
	mine, others := s.part(path[0]), len(s.parts)
	if mine.size > 0 {
		others--
	}
	least := limit
	if others > 0 {
		least = max(1, limit/shareOf)
	}
	if instead, ok = mine.admit(least, path[1:]); instead != nil || !ok {
		return instead, ok
	}
	if s.size < limit {
		return nil, true
	}
	most := slices.MaxFunc(s.parts, func(a, b *share) int { return a.size - b.size })
	switch {
	case most.size > mine.size+1:
		return most.newest(), true
	case mine.size > 0:
		return mine.admit(mine.size, path[1:])
	}
	return nil, false
}

// newest is the job that came last to whoever has the most.
func (s *share) newest() *job {
	if len(s.parts) == 0 {
		return s.jobs[len(s.jobs)-1]
	}
	return slices.MaxFunc(s.parts, func(a, b *share) int { return a.size - b.size }).newest()
}

// push puts a job under a path. A share that had none comes after those that
// wait.
func (s *share) push(j *job, path []string) {
	s.size++
	if len(path) == 0 {
		s.jobs = append(s.jobs, j)
		return
	}
	p := s.part(path[0])
	if p.size == 0 {
		s.parts = append(s.parts, p)
	}
	p.push(j, path[1:])
}

// remove takes out a job that is under a path. If it was served, whoever's turn
// it was comes after the others.
func (s *share) remove(j *job, path []string, served bool) {
	s.size--
	if len(path) == 0 {
		at := slices.Index(s.jobs, j)
		s.jobs = slices.Delete(s.jobs, at, at+1)
		return
	}
	p := s.part(path[0])
	p.remove(j, path[1:], served)
	if p.size > 0 && !served {
		return
	}
	at := slices.Index(s.parts, p)
	s.parts = slices.Delete(s.parts, at, at+1)
	if p.size > 0 {
		s.parts = append(s.parts, p)
	}
}

// next is the first job in turn that can begin, nil if none can.
func (s *share) next(can func(*job) bool) *job {
	for _, j := range s.jobs {
		if can(j) {
			return j
		}
	}
	for _, p := range s.parts {
		if j := p.next(can); j != nil {
			return j
		}
	}
	return nil
}

// each calls f for every job.
func (s *share) each(f func(*job)) {
	s.next(func(j *job) bool { f(j); return false })
}
