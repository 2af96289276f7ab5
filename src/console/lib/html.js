// Preact with tagged templates: what every part of the console is made with. Text in templates becomes text nodes, never markup.
import { h, options } from "preact"
import htm from "htm"
import { visible } from "./format.js"

export { render } from "preact"
export { useEffect, useMemo, useRef, useState } from "preact/hooks"

// every text of the page is shown so that each character of it is seen
const before = options.vnode
options.vnode = (vnode) => {
  if (vnode.type === null && typeof vnode.props === "string") vnode.props = visible(vnode.props)
  before?.(vnode)
}
/** The text of an option is its value, which stays as it is. */
const element = (type, props, ...children) =>
  h(type, type === "option" ? { value: children.join(""), ...props } : props, ...children)
export const html = htm.bind(element)
