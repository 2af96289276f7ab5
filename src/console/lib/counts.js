// What several pages compute of the counts and ages that the server answers. Pure.

export const sum = (values) => values.reduce((total, value) => total + value, 0)
/** The greatest of some ages; undefined if none is known. */
export const oldest = (ages) => {
  const known = ages.filter((age) => age !== null && age !== undefined)
  return known.length === 0 ? undefined : Math.max(...known)
}
/** How many positions of a topic the log keeps. */
export const recordsOf = ({ partitions }) => sum(partitions.map(({ end, start }) => end - start))
/** How many positions a topic ever had: it only grows. */
export const endOf = ({ partitions }) => sum(partitions.map(({ end }) => end))
