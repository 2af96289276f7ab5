// Places the nodes of a directed graph in columns from the left to the right, and orders each column so that few lines cross. Pure.

/** The edges that close a circle, by a depth-first walk: they do not count for the columns. */
const backEdges = (ids, next) => {
  const state = new Map()
  const found = new Set()
  const visit = (first) => {
    const path = [[first, 0]]
    state.set(first, "open")
    while (path.length > 0) {
      const top = path.at(-1)
      const [id] = top
      const edge = next.get(id)?.[top[1]++]
      if (edge === undefined) {
        state.set(id, "done")
        path.pop()
      } else if (state.get(edge.to) === "open") found.add(edge)
      else if (!state.has(edge.to)) {
        state.set(edge.to, "open")
        path.push([edge.to, 0])
      }
    }
  }
  for (const id of ids) if (!state.has(id)) visit(id)
  return found
}
/** The column of each node: one more than the last of those that lead to it. */
const columnsOf = (nodes, edges, isBack) => {
  const column = new Map(nodes.map(({ id }) => [id, 0]))
  for (let round = 0; round < nodes.length; round++) {
    let isMoved = false
    for (const edge of edges) {
      const least = column.get(edge.from) + 1
      if (isBack.has(edge) || column.get(edge.to) >= least) continue
      column.set(edge.to, least)
      isMoved = true
    }
    if (!isMoved) break
  }
  return column
}
const mean = (values, otherwise) =>
  values.length === 0 ? otherwise : values.reduce((sum, value) => sum + value, 0) / values.length

/**
 * `{ nodes, edges, columns }`: each node with its `column` and its `row`. `nodes` have an `id`, `edges` `from` and `to`; edges to unknown nodes are left
 * out. A node without edges is put into the column of the node that it names as `beside`. `isBack` of an edge: it closes a circle.
 */
export const placed = (nodes, edges) => {
  const ids = new Set(nodes.map(({ id }) => id))
  const known = edges.filter(({ from, to }) => ids.has(from) && ids.has(to))
  const next = Map.groupBy(known, ({ from }) => from)
  const back = backEdges(ids, next)
  const column = columnsOf(nodes, known, back)
  const linked = new Set(known.flatMap(({ from, to }) => [from, to]))
  for (const { beside, id } of nodes) if (!linked.has(id) && column.has(beside)) column.set(id, column.get(beside))
  const columns = []
  for (const one of nodes) (columns[column.get(one.id)] ??= []).push(one.id)
  const before = Map.groupBy(known, ({ to }) => to)
  const row = new Map()
  const number = () => columns.forEach((some) => some.forEach((id, i) => row.set(id, i)))
  number()
  // to the right by what leads to a node, to the left by what it leads to
  for (let sweep = 0; sweep < 6; sweep++) {
    const isRight = sweep % 2 === 0
    for (const some of isRight ? columns : columns.toReversed()) {
      const weight = new Map(
        some.map((id) => {
          const neighbours = isRight ? before.get(id)?.map(({ from }) => from) : next.get(id)?.map(({ to }) => to)
          return [
            id,
            mean(
              (neighbours ?? []).map((one) => row.get(one)),
              row.get(id)
            )
          ]
        })
      )
      some.sort((a, b) => weight.get(a) - weight.get(b))
      some.forEach((id, i) => row.set(id, i))
    }
  }
  return {
    columns: columns.length,
    nodes: nodes.map((one) => Object.assign({}, one, { column: column.get(one.id), row: row.get(one.id) })),
    edges: known.map((edge) => Object.assign({}, edge, { isBack: back.has(edge) }))
  }
}
/** The ids of a node, of all that lead to it, and of all that it leads to. */
export const related = (edges, id) => {
  const found = new Set([id])
  for (const [from, to] of [
    ["from", "to"],
    ["to", "from"]
  ]) {
    const reached = new Set([id])
    // a set yields what is added while it is iterated
    for (const one of reached) for (const edge of edges) if (edge[from] === one) reached.add(edge[to])
    for (const one of reached) found.add(one)
  }
  return found
}
