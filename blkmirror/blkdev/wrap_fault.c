/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>

#include "blkmirror/blkdev/wrap.h"
#include "blkmirror/blkdev/wrap_private.h"

struct fault_op {
	struct wrap_op base;
	int error_after;                /* 0: the device's own result stands */
};

struct wrap_fault {
	struct blk_dev dev;
	struct blk_dev *next;
	struct wrap_pool pool;
	struct wrap_fault_rule rule;    /* ops 0: no faults */
	uint64_t matched;               /* by the present rule */
	uint64_t fired;
};

/* Whole ranges are inside the device, so the sums do not overflow. */
static bool fault_touches(const struct wrap_fault_rule *rule, const struct blk_req *req)
{
	if (rule->len_bytes == 0 || req->op == BLK_FLUSH)
		return true;
	return req->offset_bytes < rule->offset_bytes + rule->len_bytes &&
	       rule->offset_bytes < req->offset_bytes + req->len_bytes;
}

static bool fault_fires(struct wrap_fault *fault, const struct blk_req *req)
{
	const struct wrap_fault_rule *rule = &fault->rule;

	if (!wrap_op_matches(rule->ops, req) || !fault_touches(rule, req))
		return false;
	fault->matched++;
	if (fault->matched < rule->from_nth ||
	    fault->matched - rule->from_nth >= rule->fail_count)
		return false;
	fault->fired++;
	return true;
}

static void fault_child_done(struct blk_req *child)
{
	struct fault_op *op = container_of(child, struct fault_op, base.child);
	struct wrap_fault *fault = container_of(op->base.parent->dev, struct wrap_fault, dev);

	wrap_op_answer(&fault->pool, &op->base, op->error_after ? op->error_after : child->result);
}

static void fault_submit(struct blk_dev *dev, struct blk_req *req)
{
	struct wrap_fault *fault = container_of(dev, struct wrap_fault, dev);
	bool fires = fault_fires(fault, req);
	struct wrap_op *base;

	if (fires && !fault->rule.after) {
		blk_complete_later(req, fault->rule.error);
		return;
	}
	base = wrap_op_get(&fault->pool, req, fault_child_done);
	if (!base) {
		blk_complete_later(req, -ENOMEM);
		return;
	}
	container_of(base, struct fault_op, base)->error_after = fires ? fault->rule.error : 0;
	blk_submit(fault->next, &base->child);
}

static void fault_close(struct blk_dev *dev)
{
	struct wrap_fault *fault = container_of(dev, struct wrap_fault, dev);

	wrap_pool_release(&fault->pool);
	free(fault);
}

static const struct blk_ops fault_ops = {
	.name = "fault",
	.submit = fault_submit,
	.close = fault_close,
};

struct blk_dev *wrap_fault_new(struct blk_dev *next)
{
	struct wrap_fault *fault = calloc(1, sizeof(*fault));

	if (!fault)
		return NULL;
	if (wrap_pool_init(&fault->pool, sizeof(struct fault_op))) {
		free(fault);
		return NULL;
	}
	fault->next = next;
	blk_dev_init(&fault->dev, &fault_ops, next->loop, next->size_bytes, &next->limits);
	return &fault->dev;
}

void wrap_fault_set(struct blk_dev *dev, const struct wrap_fault_rule *rule)
{
	struct wrap_fault *fault = container_of(dev, struct wrap_fault, dev);

	LOOP_CHECK(dev->loop);
	CHECK(dev->ops == &fault_ops);
	fault->matched = 0;
	fault->rule = (struct wrap_fault_rule){ 0 };
	if (!rule)
		return;
	CHECK(rule->error < 0);
	CHECK(rule->from_nth >= 1);
	CHECK(rule->len_bytes <= UINT64_MAX - rule->offset_bytes);
	fault->rule = *rule;
}

uint64_t wrap_fault_fired(const struct blk_dev *dev)
{
	CHECK(dev->ops == &fault_ops);
	return container_of(dev, struct wrap_fault, dev)->fired;
}
