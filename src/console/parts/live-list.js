// The list of what came of a topic or a view, each with its data and links.
import { linkTo } from "../lib/router.js"
import { html, useState } from "../lib/html.js"
import { Data, Json, JsonLine, Tag, Time } from "./common.js"
import { KeyLink } from "./record.js"

const Key = ({ item: { entity, key }, source }) => {
  if (key === null || key === undefined) return html`<span class="quiet">none</span>`
  if (source.kind === "topic") return html`<${KeyLink} value=${key} most=${32} />`
  const rest = key.filter((part) => part !== entity).join(" ")
  return html`${entity !== undefined && html`<${KeyLink} value=${entity} most=${32} />`}${" "}<span class="quiet"
      ><${Data} value=${rest} most=${80}
    /></span>`
}
const What = ({ item: { changed, event, type }, source }) => {
  if (source.kind === "topic") return type
  if (event === "delete") return html`<${Tag} kind="bad">deleted<//>`
  return changed.length > 0 ? html`<${Tag} kind="warn">changed<//>` : html`<${Tag} kind="good">row<//>`
}
const Links = ({ item, source }) => {
  const { partition, position, tenant, value } = item
  if (source.kind === "topic")
    return html`<p class="row">
      <a href=${linkTo("events", { topic: source.name, at: `${partition}:${position}` })}
        >partition ${partition}, position ${position}</a
      >
      ${tenant && html`<span class="quiet">tenant ${tenant}</span>`}
      <span class="quiet">event time <${Time} at=${item.event_time} /></span>
    </p>`
  if (source.key.length === 0) return null
  const key = Object.fromEntries(source.key.map((name) => [name, String(value[name])]))
  return html`<p class="row"><a href=${linkTo("explain", { table: source.name, ...key })}>Why is this row so?</a></p>`
}
const Item = ({ item, source }) => {
  const [isOpen, setOpen] = useState(false)
  const { at, changed = [], headers = {}, value } = item
  const short = changed.length > 0 ? Object.fromEntries(changed.map((name) => [name, value[name]])) : value
  return html`<tr class="fresh">
      <td>
        <button type="button" class="small" aria-expanded=${isOpen} onClick=${() => setOpen(!isOpen)}>
          ${isOpen ? "Less" : "More"}
        </button>
      </td>
      <td>${at === undefined ? html`<span class="quiet">earlier</span>` : html`<${Time} at=${at} />`}</td>
      ${
        source.kind === "topic" &&
        html`<td>
          <a href=${linkTo("events", { topic: source.name, at: `${item.partition}:${item.position}` })}
            >${item.partition}:${item.position}</a
          >
        </td>`
      }
      <td><${What} item=${item} source=${source} /></td>
      <td><${Key} item=${item} source=${source} /></td>
      <td>${value === null ? "deleted" : html`<${JsonLine} value=${short} />`}</td>
    </tr>
    ${
      isOpen &&
      html`<tr>
        <td colspan="6">
          <${Links} item=${item} source=${source} />
          <${Json} value=${value} />
          ${
            Object.keys(headers).length > 0 &&
            html`<p class="quiet">Headers</p>
              <${Json} value=${headers} />`
          }
        </td>
      </tr>`
    }`
}

/** `items` of a source: `{ kind: "topic" | "view", name, key }`. Where they are fast, nothing moves but the list itself. */
export const LiveItems = ({ isFast, items, source }) =>
  html`<div class="scroll" tabindex="0" role="region" aria-label="What came">
    <table class=${isFast ? "calm" : ""}>
      <caption class="sr">
        The newest of ${source.name}
      </caption>
      <thead>
        <tr>
          <th scope="col"><span class="sr">more</span></th>
          <th scope="col">${source.kind === "topic" ? "stored" : "came"}</th>
          ${source.kind === "topic" && html`<th scope="col">position</th>`}
          <th scope="col">${source.kind === "topic" ? "type" : "change"}</th>
          <th scope="col">key</th>
          <th scope="col">value</th>
        </tr>
      </thead>
      <tbody>
        ${items.map((item) => html`<${Item} key=${item.id} item=${item} source=${source} />`)}
      </tbody>
    </table>
  </div>`
