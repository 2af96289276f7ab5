// Assigns a topic's partitions to the members of a group: as evenly as possible, moving as few as possible. The group's leader runs it. Pure.

/** A member of a group. */
export interface MemberState {
  readonly id: string
  /** The partitions that it uses now. */
  readonly owned: ReadonlyArray<number>
  /** The generation of its newest assignment. */
  readonly generation: number
}

/**
 * The partitions of each member. A partition that must move is assigned to no member while its owner still uses it: the owner releases it,
 * and then the group rebalances again. If two members claim a partition, the one with the newer generation owns it.
 */
export const balance = (
  members: ReadonlyArray<MemberState>,
  partitions: number
): ReadonlyMap<string, ReadonlyArray<number>> => {
  const newest = members.toSorted((a, b) => b.generation - a.generation || (a.id < b.id ? -1 : 1))
  const owner = new Map<number, string>()
  for (const { id, owned } of newest)
    for (const partition of owned) if (partition < partitions && !owner.has(partition)) owner.set(partition, id)
  const owns = new Map(newest.map(({ id }) => [id, [] as Array<number>]))
  for (const [partition, id] of [...owner].toSorted(([a], [b]) => a - b)) owns.get(id)!.push(partition)

  // if partitions cannot be divided evenly, those that have most keep one more
  const order = newest.toSorted((a, b) => owns.get(b.id)!.length - owns.get(a.id)!.length || (a.id < b.id ? -1 : 1))
  const size = new Map(
    order.map(({ id }, i) => [id, Math.floor(partitions / order.length) + (i < partitions % order.length ? 1 : 0)])
  )
  const assigned = new Map(order.map(({ id }) => [id, owns.get(id)!.slice(0, size.get(id))]))
  const free = Array.from({ length: partitions }, (_, partition) => partition).filter(
    (partition) => !owner.has(partition)
  )
  for (const { id } of order) {
    const mine = assigned.get(id)!
    while (mine.length < size.get(id)! && free.length > 0) mine.push(free.shift()!)
  }
  return assigned
}
