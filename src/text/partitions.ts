// Partitions as people read them. Pure.

/** Numbers of partitions, the first twenty by name. */
export const partitionsText = (partitions: ReadonlyArray<number>) => {
  const shown = partitions
    .toSorted((a, b) => a - b)
    .slice(0, 20)
    .join(", ")
  const more = partitions.length > 20 ? ` and ${partitions.length - 20} more` : ""
  return `partition${partitions.length === 1 ? "" : "s"} ${shown}${more}`
}
