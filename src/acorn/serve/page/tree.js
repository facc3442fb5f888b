// Texts that branch: each branch keeps its parent's tokens up to a place and goes on with its own. Pure data.

export class Tree {
  constructor(tokens = []) {
    this.root = { parent: null, at: 0, tokens, children: [] };
  }

  /** All tokens of a branch, from the beginning on. */
  path(node) {
    return node.parent ? [...this.path(node.parent).slice(0, node.at), ...node.tokens] : node.tokens;
  }

  /** The first token of a branch that is not the prompt's. */
  start(node) {
    return node.parent ? Math.min(node.at, this.start(node.parent)) : node.tokens.length;
  }

  /** A new branch that keeps the first `at` tokens of `node`. It hangs on the branch that those tokens belong to. */
  branch(node, at, tokens = []) {
    let parent = node;
    while (parent.parent && at <= parent.at) parent = parent.parent;
    const child = { parent, at, tokens, children: [] };
    parent.children.push(child);
    return child;
  }

  /** Every branch with its depth, parents first. */
  *walk(node = this.root, depth = 0) {
    yield [node, depth];
    for (const child of node.children) yield* this.walk(child, depth + 1);
  }
}
