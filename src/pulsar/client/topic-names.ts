// Names of topics and of their partitions, which are topics of their own to Pulsar. Pure.

/** The topics behind one of so many partitions; 0: it is not partitioned, and is its own. */
export const partsOf = (topic: string, count: number): ReadonlyArray<string> =>
  count === 0 ? [topic] : Array.from({ length: count }, (_, i) => `${topic}-partition-${i}`)
/** The topic that a partition is of; another topic stays what it is. */
export const wholeOf = (part: string): string => part.replace(/-partition-\d+$/, "")
/** The name without tenant, namespace and partition. */
export const localName = (topic: string): string => wholeOf(topic).replace(/^.*\//, "")
