// Measured steps as tables and bars.
#pragma once

#include <string>
#include <vector>

#include "tools/profile/measured_layers.h"
#include "tools/profile/product.h"

namespace ds::profile {

// Columns, facts (`peaks` among them) and the sections of the page: time by part, memory over the
// step, memory at its peak by name, kinds of ops.
Product measured_page(const Measurement& measured, const std::vector<MeasuredRow>& rows,
                      const std::string& peaks);

}  // namespace ds::profile
