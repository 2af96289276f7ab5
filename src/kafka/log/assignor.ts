// Who of a group gets which partition: as even as can be, moving as few as possible. Pure; the group's leader runs it.

/** A member and the partitions that it has, with the number under which it got the newest. */
export interface Member {
  readonly id: string
  readonly owned: ReadonlyArray<number>
  readonly generation: number
}

/**
 * Partitions by member. One that must move is given to nobody while its owner still has it: the owner gives it up, and then the group
 * shares again. Where two claim a partition the one with the newer generation has it.
 */
export const balance = (
  members: ReadonlyArray<Member>,
  partitions: number
): ReadonlyMap<string, ReadonlyArray<number>> => {
  const newest = members.toSorted((a, b) => b.generation - a.generation || (a.id < b.id ? -1 : 1))
  const owner = new Map<number, string>()
  for (const { id, owned } of newest)
    for (const partition of owned) if (partition < partitions && !owner.has(partition)) owner.set(partition, id)
  const having = new Map(newest.map(({ id }) => [id, [] as Array<number>]))
  for (const [partition, id] of [...owner].toSorted(([a], [b]) => a - b)) having.get(id)!.push(partition)

  // those that have most keep the one more where it does not go round
  const order = newest.toSorted((a, b) => having.get(b.id)!.length - having.get(a.id)!.length || (a.id < b.id ? -1 : 1))
  const size = new Map(
    order.map(({ id }, i) => [id, Math.floor(partitions / order.length) + (i < partitions % order.length ? 1 : 0)])
  )
  const given = new Map(order.map(({ id }) => [id, having.get(id)!.slice(0, size.get(id))]))
  const free = Array.from({ length: partitions }, (_, partition) => partition).filter(
    (partition) => !owner.has(partition)
  )
  for (const { id } of order) {
    const mine = given.get(id)!
    while (mine.length < size.get(id)! && free.length > 0) mine.push(free.shift()!)
  }
  return given
}
